"""What was trained travels in one small file, and another store answers from it without training."""

import io
import json
import lzma
import shutil
import tarfile

import pytest

from kardlib.__main__ import main
from kardlib.artifacts.store import MANIFEST, Kind, Store, artifact_name, describe_files
from kardlib.errors import DataError
from kardlib.kard import pipeline
from kardlib.kard.experiment import LIKELIHOODS, PREDICTIONS, Cell, open_settings
from kardlib.kard.pipeline import predict, prepare_all, train_students, weigh_options
from kardlib.kard.rankings import DENSE, RERANKED, RERANKER, Reading, read_passages
from kardlib.kard.student import load_student
from kardlib.models.encoders import load_encoder
from kardlib.packing import LEFT_OUT, pack, unpack
from kardlib.presets import preset
from tests.folders import ROOT
from tests.test_recipes import KEPT

ANSWERS = sorted((ROOT / "answers").glob("*.tar.xz"))


def ask(experiment, cells):
    """What students answer, and how likely they find the options."""
    asked = prepare_all(experiment, cells)
    students = train_students(experiment, asked)
    answers = predict(experiment, "test", asked, students, read_passages(Reading(experiment, "test", asked, students)))
    return answers, weigh_options(experiment, "test", asked, students, answers)


def read(path):
    return json.loads(path.read_text())


def kinds_in(store):
    return {path.parent.name.partition("-")[0] for path in store.root.glob(f"*/{MANIFEST}")}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """An experiment, cells of it that are answered, and the file that its store was packed into."""
    root = tmp_path_factory.mktemp("packing")
    experiment = open_settings(preset("smoke"), Store(root / "store"))
    cells = [Cell(method, experiment.student, 0) for method in ("kard_reranker", "undistilled_bm25", "rag_warm")]
    ask(experiment, cells)
    pack(experiment.store, root / "packed.tar.xz")
    return experiment, cells, root / "packed.tar.xz"


def test_another_store_answers_from_it_and_trains_nothing(packed, tmp_path):
    experiment, cells, file = packed
    other = open_settings(experiment.settings, Store(tmp_path))
    said = unpack(file, other.store)
    assert "1 student" in said and "1 reranker" in said and "already" not in said
    for kind in (pipeline.STUDENT, pipeline.RAG, PREDICTIONS, LIKELIHOODS, RERANKER, RERANKED, DENSE):
        assert kind.name in kinds_in(other.store)
    before = {path.name for path in tmp_path.iterdir()}
    assert ask(other, cells) == ask(experiment, cells)
    made = {path.name for path in tmp_path.iterdir()} - before
    assert {name.partition("-")[0] for name in made if not name.startswith(".")} <= LEFT_OUT
    assert unpack(file, other.store).startswith("into the store: nothing; there already: ")


def test_it_holds_no_weights_and_where_they_are_needed_says_so(packed, tmp_path):
    experiment, cells, file = packed
    with tarfile.open(file) as tar:
        names = tar.getnames()
    assert not [name for name in names if name.endswith(("model.safetensors", "tokenizer.json", "config.json"))]
    assert file.stat().st_size < 200_000
    other = open_settings(experiment.settings, Store(tmp_path))
    unpack(file, other.store)
    student = train_students(other, prepare_all(other, cells))[cells[0]]
    with pytest.raises(DataError, match=r"the weights of student-.* stayed on the machine that trained it"):
        load_student(str(student))
    (reranker,) = tmp_path.glob("reranker-*")
    with pytest.raises(DataError, match=r"the weights of reranker-.* stayed on the machine that trained it"):
        load_encoder(str(reranker))


def test_the_same_artifacts_give_the_same_bytes_also_from_a_store_that_was_unpacked(packed, tmp_path):
    experiment, _, file = packed
    pack(experiment.store, tmp_path / "again.tar.xz")
    assert (tmp_path / "again.tar.xz").read_bytes() == file.read_bytes()
    unpack(file, Store(tmp_path / "store"))
    pack(Store(tmp_path / "store"), tmp_path / "second.tar.xz")
    unpack(tmp_path / "second.tar.xz", Store(tmp_path / "third"))
    assert kinds_in(Store(tmp_path / "third")) == kinds_in(Store(tmp_path / "store"))


def test_provenance_is_that_of_the_machine_that_made_it(packed, tmp_path):
    experiment, _, file = packed
    unpack(file, Store(tmp_path))
    for path in tmp_path.glob(f"*/{MANIFEST}"):
        made = experiment.store.root / path.parent.name / MANIFEST
        for name in ("seconds", "provenance", "spec", "recipe"):
            assert read(path)[name] == read(made)[name]


def test_a_training_that_was_stopped_and_went_on_still_says_so(tmp_path):
    Store(tmp_path / "store").take(Kind("texts"), {"a": 1}, {"texts.json": b"[]"}, {"resumed": True})
    pack(Store(tmp_path / "store"), tmp_path / "packed.tar.xz")
    unpack(tmp_path / "packed.tar.xz", Store(tmp_path / "other"))
    (manifest,) = (tmp_path / "other").glob(f"*/{MANIFEST}")
    assert read(manifest)["resumed"]


def test_what_is_there_is_kept(packed, tmp_path):
    experiment, _, file = packed
    shutil.copytree(experiment.store.root, tmp_path / "store")
    before = describe_files(tmp_path / "store")
    unpack(file, Store(tmp_path / "store"))
    assert describe_files(tmp_path / "store").items() >= {k: v for k, v in before.items() if ".lock" not in k}.items()


def test_what_was_begun_or_is_damaged_is_not_packed(tmp_path):
    store = Store(tmp_path / "store")
    good = store.take(Kind("texts"), {"a": 1}, {"texts.json": b"[]"}, {})
    bad = store.take(Kind("texts"), {"a": 2}, {"texts.json": b"[]"}, {})
    (bad / "texts.json").write_bytes(b"[1]")
    shutil.copytree(good, tmp_path / "store" / "texts-0.partial")
    pack(store, tmp_path / "packed.tar.xz")
    with tarfile.open(tmp_path / "packed.tar.xz") as tar:
        assert {name.partition("/")[0] for name in tar.getnames()} == {good.name}


def test_an_empty_store_is_said_and_leaves_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KARD_STORE", str(tmp_path / "store"))
    assert main(["pack", str(tmp_path / "packed.tar.xz")]) == 2
    assert "there is nothing to pack" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.xz"))


def test_a_folder_is_no_file_to_pack_into(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KARD_STORE", str(tmp_path / "store"))
    assert main(["pack", str(tmp_path)]) == 2
    assert "is a folder: name a file in it" in capsys.readouterr().err


def write_tar(path, members):
    with tarfile.open(path, "w:xz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


MANIFEST_TEXT = (
    b'{"kind": "texts", "recipe": 1, "spec": {"a": 1}, "seconds": 1, "provenance": {}, '
    b'"files": {"texts.json": {"sha256": "0"}}}'
)
NAME = artifact_name(Kind("texts"), {"a": 1})


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"../out": b"x"}, "cannot be unpacked"),
        ({"texts-0/artifact.json": MANIFEST_TEXT}, "which was not made from what it says"),
        ({f"{NAME}/artifact.json": b"[]"}, "which is no artifact"),
        ({f"{NAME}/texts.json": b"[]"}, "which is no artifact"),
        ({f"{NAME}/artifact.json": MANIFEST_TEXT}, "whose texts.json is not the one that was packed"),
        ({f"{NAME}/artifact.json": MANIFEST_TEXT, f"{NAME}/texts.json": b"[]"}, "whose texts.json is not the one that"),
        ({NAME: b"[]"}, "which is no artifact"),
    ],
)
def test_what_is_no_pack_is_refused_in_a_sentence(tmp_path, monkeypatch, capsys, members, said):
    write_tar(tmp_path / "packed.tar.xz", members)
    refuse(tmp_path, monkeypatch, capsys, said)


def refuse(folder, monkeypatch, capsys, said):
    monkeypatch.setenv("KARD_STORE", str(folder / "store"))
    assert main(["unpack", str(folder / "packed.tar.xz")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (folder / "store").exists() and not (folder.parent / "out").exists()


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "changed", "text"])
def test_a_damaged_file_is_refused_in_a_sentence(packed, tmp_path, monkeypatch, capsys, damage):
    content = packed[2].read_bytes()
    half = len(content) // 2
    changed = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
    contents = {"empty": b"", "cut": content[:half], "changed": changed, "text": b"no archive"}
    if damage in contents:
        (tmp_path / "packed.tar.xz").write_bytes(contents[damage])
    refuse(tmp_path, monkeypatch, capsys, "cannot be unpacked")


@pytest.mark.parametrize("file", ANSWERS, ids=lambda file: file.name)
def test_published_answers_are_those_of_the_present_recipes(file, tmp_path):
    recipes = {name: known["recipe"] for name, known in read(KEPT).items()}
    unpack(file, Store(tmp_path))
    manifests = [read(path) for path in tmp_path.glob(f"*/{MANIFEST}")]
    assert manifests and all(m["recipe"] == recipes[m["kind"]] for m in manifests)
    assert all(not m["provenance"]["dirty"] and m["provenance"]["commit"] for m in manifests)
    assert b"/home/" not in (content := lzma.decompress(file.read_bytes())) and b"/root/" not in content
