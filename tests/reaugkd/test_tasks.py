"""Classification tasks: GLUE's files as they are and as they should not be, and the closed world's task."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kardlib.data.records import say
from kardlib.errors import DataError
from kardlib.presets import preset
from kardlib.reaugkd import tasks
from kardlib.reaugkd.tasks import COLUMNS, RawExample, check_labels, open_task, read_parquet, read_tsv, split_task
from kardlib.settings import GLUE_TASKS
from tests.folders import REAL

HEADER = "index\tsentence1\tsentence2\tlabel"
WANTED = ["sentence1", "sentence2", "label"]


def write_rte(folder: Path, train: list[str], dev: list[str]) -> Path:
    rte = folder / "glue" / "RTE"
    rte.mkdir(parents=True)
    (rte / "train.tsv").write_text("\n".join([HEADER, *train]) + "\n")
    (rte / "dev.tsv").write_text("\n".join([HEADER, *dev]) + "\n")
    return folder


def rows(count: int, label: str = "") -> list[str]:
    labels = [label] if label else ["not_entailment", "entailment"]
    return [f"{i}\tpremise {i}\thypothesis {i}\t{labels[i % len(labels)]}" for i in range(count)]


def test_every_glue_task_has_its_columns():
    assert tuple(sorted(COLUMNS)) == GLUE_TASKS


def test_a_folder_becomes_a_task_whose_reported_split_is_the_official_dev(tmp_path):
    settings = preset("embedded", "rte", str(write_rte(tmp_path, rows(40), rows(6)))).override({"reaugkd.train": 20})
    task = open_task(settings)
    assert task.labels == ("entailment", "not_entailment")
    assert {split: len(examples) for split, examples in task.splits.items()} == {"train": 20, "dev": 4, "test": 6}
    assert task.splits["test"][1] == ("premise 1", "hypothesis 1", 0)
    assert not set(task.splits["dev"]) & set(task.splits["train"])
    assert open_task(settings) == task
    assert open_task(settings.model_copy(update={"data_dir": str(tmp_path / "glue")})) == task  # the folder itself


def test_quotes_are_text_and_only_line_feeds_end_lines(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_bytes('\ufeffsentence\tlabel\r\n"one\u2028\x85half\t0\r\n\ntwo\t1'.encode())
    assert list(read_tsv(path, ["sentence", "label"])) == [
        RawExample('"one\u2028\x85half', "", "0", f"{path}, line 2"),
        RawExample("two", "", "1", f"{path}, line 4"),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (rows(2), r"train\.tsv, line 1: the header has no column 'sentence1'; the first line must name the columns"),
        ([], r"line 1: the header has no column"),
        ([HEADER, *rows(1), "1\ta\tb"], r"line 3: 3 columns where the header has 4"),
        ([HEADER, "1\ta\tb\tc\td"], r"line 2: 5 columns where the header has 4"),
        ([HEADER, "1\ta\tb\t "], r"line 2: the label is empty"),
        ([HEADER, *rows(1), "1\ta\t \tentailment"], r"line 3: the sentence2 is empty; fill it in or remove the line"),
        (["index\tsentence1\tsentence1\tsentence2\tlabel"], r"line 1: the header has the column 'sentence1' twice"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_its_line(lines, message, tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message) as error:
        list(read_tsv(path, WANTED))
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_colas_official_files_have_no_header(tmp_path):
    lines = "".join(f"gj04\t{i % 2}\t{'' if i % 2 else '*'}\tSentence {i}.\n" for i in range(40))
    (tmp_path / "CoLA").mkdir()
    files = [tmp_path / "CoLA" / f"{file}.tsv" for file in ("train", "dev")]
    for file in files:
        file.write_text(lines)
    settings = preset("embedded", "cola", str(tmp_path))
    with pytest.raises(DataError, match=r"no column 'sentence'.*leave data_dir out .* or put 'source label star sent"):
        open_task(settings)
    for file in files:
        file.write_text("source\tlabel\tstar\tsentence\n" + lines)
    assert open_task(settings).splits["test"][1] == ("Sentence 1.", "", 1)


def test_missing_and_undecodable_files(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*train\.tsv; correct data_dir"):
        list(read_tsv(tmp_path / "train.tsv", WANTED))
    (tmp_path / "latin").write_bytes("sentence\tlabel\ncaf\xe9\t1".encode("latin-1"))
    with pytest.raises(DataError, match="latin, line 2: the text is not UTF-8"):
        list(read_tsv(tmp_path / "latin", ["sentence", "label"]))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_tsv(tmp_path, WANTED))


def test_a_misspelt_label_is_no_third_class(tmp_path):
    misspelt = preset("embedded", "rte", str(write_rte(tmp_path, [*rows(40), *rows(1, "entailmnt")], rows(4))))
    with pytest.raises(DataError, match=r"train\.tsv, line 42: the label 'entailmnt' is none of entailment, not_ent"):
        open_task(misspelt)
    with pytest.raises(DataError, match="here: the label '-1' is none of 0, 1; correct it"):
        check_labels([RawExample("a", "", "1", "there"), RawExample("a", "", "-1", "here")], ["0", "1"])


def test_a_label_never_seen_in_training_is_named_with_its_line():
    train, test = ([RawExample(f"{i}", "", label, "here") for i in range(20) for label in seen] for seen in ("01", "2"))
    with pytest.raises(DataError, match="here: the label '2' is never seen in training; correct it or train on more"):
        split_task("mnli", train, test, None, 5)


def test_texts_of_the_test_that_stand_in_training_are_said(tmp_path, capsys):
    say.cache_clear()  # it says a thing once
    open_task(preset("embedded", "rte", str(write_rte(tmp_path, rows(40), rows(6)))))
    assert "rte: 6 texts of test are in train too: 'premise 0 hypothesis 0', " in capsys.readouterr().err


def test_too_few_labels_or_examples():
    with pytest.raises(DataError, match=r"1 label\(s\); at least two"):
        split_task("rte", [RawExample("a", "", "0", "here")] * 20, [], None, 5)
    with pytest.raises(DataError, match="no test examples"):
        split_task("rte", [RawExample("a", "", str(i % 2), "here") for i in range(20)], [], None, 5)


def test_a_dataset_that_is_no_task():
    with pytest.raises(DataError, match=r"'obqa' is no classification task.* \(there are world, cola, "):
        open_task(preset("embedded", "obqa", "nowhere"))


@given(line=st.text(max_size=60))
def test_any_line_is_read_or_refused_in_one_sentence(tmp_path_factory, line):
    path = tmp_path_factory.mktemp("tsv") / "dev.tsv"
    path.write_bytes(f"sentence\tlabel\n{line}".encode("utf-8", "surrogatepass"))
    try:
        assert all(row.text and row.label for row in read_tsv(path, ["sentence", "label"]))
    except DataError as error:
        assert str(path) in str(error)


def test_the_hubs_files(tmp_path):
    path = tmp_path / "train-00000-of-00001.parquet"
    pd.DataFrame({"premise": ["a ", "b"], "hypothesis": ["c", "d"], "label": [2, 0], "idx": [0, 1]}).to_parquet(path)
    assert read_parquet(path, COLUMNS["mnli"].hub) == [
        RawExample("a", "c", "2", f"{path.name}, row 1"),
        RawExample("b", "d", "0", f"{path.name}, row 2"),
    ]
    path.write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"no parquet file with the columns premise, hypothesis, label \("):
        read_parquet(path, COLUMNS["mnli"].hub)


@pytest.mark.parametrize("scale", ["smoke", "embedded"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_worlds_task_asks_for_values_that_training_knows(scale, seed):
    settings = preset(scale).override({"world.seed": seed})
    task = open_task(settings)
    assert len(task.splits["train"]) == (settings.reaugkd.train or tasks.WORLD_TRAIN)
    assert {e.label for split in task.splits.values() for e in split} <= set(range(len(task.labels)))
    with pytest.raises(DataError, match=r"question .*is never seen in training; raise reaugkd\.train"):
        open_task(settings.override({"reaugkd.train": 20}))


@pytest.mark.skipif(not (REAL / "glue").is_dir(), reason=f"GLUE's files are not at {REAL}; set KARD_DATA")
@pytest.mark.parametrize(("name", "labels", "test"), [("rte", 2, 277), ("mrpc", 2, 408), ("sst2", 2, 872)])
def test_the_official_files(name, labels, test):
    task = open_task(preset("embedded", name, str(REAL)))
    assert len(task.labels) == labels and len(task.splits["test"]) == test
    assert bool(task.splits["test"][0].pair) == (name != "sst2")
