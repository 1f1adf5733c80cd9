"""Every method has a look of its own, in colour and without."""

from itertools import combinations

import pytest
from matplotlib.colors import to_rgb

from kardlib import registry
from kardlib.kard import bound
from kardlib.kard.methods import METHODS
from kardlib.reaugkd import methods as reaugkd
from kardlib.registry import REGISTRY, Entry, RegistryError, enter, label

NETWORKS = ("network", "network_kb")
LEARNERS = ("recall_visible", "recall_hidden", "recall_lossy", *bound.READERS)
RETRIEVERS = (
    "bm25", "untrained", "random_encoder", "reranker", "helpful", "helpful_both", "dense", "dense_warm", "silver",
)  # fmt: skip


@pytest.fixture
def entries(monkeypatch):
    """The registry, which forgets what a test enters."""
    monkeypatch.setattr(registry, "REGISTRY", dict(REGISTRY))
    return registry.REGISTRY


def test_every_method_has_a_look_of_its_own():
    assert {*METHODS, *reaugkd.METHODS, *LEARNERS, *NETWORKS, *RETRIEVERS, "chance"} <= REGISTRY.keys()
    dense = [*RETRIEVERS, "rag", "rag_warm"]
    for names in ([*METHODS], [*reaugkd.METHODS], dense, LEARNERS, NETWORKS):
        for a, b in combinations(names, 2):
            one, other = REGISTRY[a], REGISTRY[b]
            assert (one.color, one.marker) != (other.color, other.marker), (a, b)
            assert (one.marker, one.line) != (other.marker, other.line), (a, b)  # without colour
    assert len({entry.label for entry in REGISTRY.values()}) == len(REGISTRY)


def test_labels_are_those_of_the_methods():
    for name, method in (METHODS | reaugkd.METHODS).items():
        assert REGISTRY[name].label == label(name) == method.label
    assert label("nobody") == "nobody"


def test_blocks_keep_the_papers_order():
    blocks = list(dict.fromkeys(REGISTRY[method].block for method in METHODS))
    assert blocks == ["prompted", "undistilled", "fine-tuned", "distilled", "oracles"]
    assert REGISTRY["reaugkd_teacher"].block != REGISTRY["reaugkd"].block
    assert {name for name, entry in REGISTRY.items() if entry.hollow} == {
        "undistilled_silver", "undistilled_gold", "kard_silver", "kard_gold", "teacher_cot", "reaugkd_teacher",
        "silver",
    }  # fmt: skip


def test_entries_without_a_look_get_the_next_of_the_palette(entries):
    enter({f"mine_{i}": Entry(f"Mine {i}") for i in range(6)})
    looks = [(e.color, e.marker, e.line) for name, e in entries.items() if name.startswith("mine")]
    assert len(set(looks)) == 5 and looks[5] == looks[0]  # then it begins anew
    assert not set(looks) & {(e.color, e.marker, e.line) for e in REGISTRY.values()}
    assert all(entries[f"mine_{i}"].block == "added" for i in range(6))


def test_an_id_is_given_once(entries):
    before = dict(entries)
    with pytest.raises(RegistryError, match=r"^there is a method 'chance' already \(Chance\): give yours another id$"):
        enter({"new": Entry("New"), "chance": Entry("Luck")})
    assert entries == before


@pytest.mark.parametrize("color", sorted({entry.color for entry in REGISTRY.values()}))
def test_colors_stand_out_from_paper(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    luminance = sum(c * w for c, w in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))
    assert 1.05 / (luminance + 0.05) >= 3  # WCAG's contrast for graphics
