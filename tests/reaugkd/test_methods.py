"""ReAugKD's table of methods, and the registry that both papers' figures are drawn by."""

from itertools import combinations

import pytest

from kardlib.reaugkd.methods import COMPRESSIONS, EARLIER, METHODS, Method, register_method
from kardlib.registry import REGISTRY, RegistryError


def test_rows():
    assert {m.id: (m.losses, m.predicts) for m in METHODS.values()} == {
        "student_alone": (("label",), "student"),
        "soft_labels": (("label", "soft"), "student"),
        "rkd": (("label", "soft", "rkd"), "student"),
        "reaugkd_no_retrieval": (("label", "soft", "relational"), "student"),
        "reaugkd": (("label", "soft", "relational"), "mixed"),
        "neighbours": (("label", "soft", "relational"), "neighbours"),
        "reaugkd_teacher": ((), "teacher"),
    }
    assert {*EARLIER} <= METHODS.keys() and {kind for kind, _ in COMPRESSIONS} <= REGISTRY.keys()


def test_a_users_row_is_drawn_too():
    register_method(Method("mine", "My losses", ("label",), "student"))
    entry = REGISTRY["mine"]
    with pytest.raises(RegistryError, match="there is a method 'mine' already"):
        register_method(Method("mine", "Other losses", ("label",), "student"))
    register_method(Method("mine", "My losses", ("soft",), "student"))  # its cell was run again
    assert METHODS["mine"].losses == ("soft",) and REGISTRY["mine"] == entry
    del METHODS["mine"], REGISTRY["mine"]
    assert (entry.label, entry.block) == ("My losses", "added") and entry.color


@pytest.mark.parametrize(
    ("losses", "predicts", "said"),
    [
        (("label", "relation"), "mixed", "losses are some of label, soft, relational, rkd, and predicts is one of"),
        (("label",), "mix", "losses are some of label, soft, relational, rkd, and predicts is one of student, mixed"),
        ((), "mixed", "the teacher's row, and no other, has no losses"),
        (("label",), "teacher", "the teacher's row, and no other, has no losses"),
    ],
)
def test_a_row_that_nobody_knows_how_to_run_is_refused(losses, predicts, said):
    with pytest.raises(RegistryError, match=f"^the method 'odd' cannot be run: {said}"):
        register_method(Method("odd", "Odd", losses, predicts))
    assert "odd" not in METHODS and "odd" not in REGISTRY


def test_rows_are_told_apart_without_colour():
    for one, other in combinations([REGISTRY[m] for m in METHODS], 2):
        assert (one.marker, one.line) != (other.marker, other.line)
