import csv
import gzip
import json
import os
import re
from pathlib import Path
from string import ascii_uppercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kardlib.data.files import (
    Dataset,
    Passage,
    PassageFile,
    Question,
    find_own,
    read_gold,
    read_kard,
    read_own,
    read_own_questions,
    read_own_rationales,
    read_passages,
    read_questions,
    read_recorded_rationales,
    write_own,
)
from kardlib.data.records import say
from kardlib.errors import DataError
from tests.folders import REAL, ROOT

STRANGERS = ROOT / "tests" / "strangers"
ROW = {
    "id": "q1",
    "sent1": "Why?",
    "sent2": "",
    "ending0": "a",
    "ending1": "b",
    "ending2": "",
    "ending3": "",
    "label": 1,
}


def write(path: Path, *rows: object) -> Path:
    """Rows as JSON lines; a text is written as it stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def release(root: Path, **files: list[object]) -> Path:
    """KARD's layout with one dataset "toy"; files by their stem."""
    kb = ("passages", "gold")
    for stem, rows in files.items():
        write(
            root / ("kb/toy" if stem in kb else "kard/toy") / (f"{stem}.jsonl.gz" if stem in kb else f"{stem}.json"),
            *rows,
        )
    return root


def test_questions_drop_empty_endings_and_join_both_sentences(tmp_path):
    file = write(tmp_path / "q.json", ROW, "", ROW | {"id": "q2", "sent2": "How?", "ending2": "c", "label": 2})
    assert read_questions(file) == [
        Question("q1", "Why?", ("a", "b"), 1),
        Question("q2", "Why? How?", ("a", "b", "c"), 2),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW | {"ending0": "", "ending1": ""}, "the question has fewer than two options"),
        ({"id": "q", "sent1": "Why?", "label": 0}, "the question has fewer than two options"),
        (ROW | {"ending1": "", "ending2": "c"}, "an option is missing before another one"),
        (ROW | {"label": 2}, "label 2 names none of the 2 options"),
        (ROW | {"label": -1}, "'label' is -1"),
        (ROW | {"label": True}, "'label' is True"),
        (ROW | {"label": "1"}, "'label' is '1'"),
        ({k: v for k, v in ROW.items() if k != "label"}, "'label' is missing"),
        (ROW | {"sent1": " "}, "the question has no text"),
        (ROW | {"sent1": None}, "'sent1' is null"),
        ({k: v for k, v in ROW.items() if k != "sent1"}, "'sent1' is missing"),
        ({k: v for k, v in ROW.items() if k != "ending0"}, "there is ending3 but no ending0; name the options without"),
        ({"Label": 1} | {k: v for k, v in ROW.items() if k != "label"}, "the field 'Label' is not read; name"),
        ('{"id": "q", "sent1": "Why?", "ending0": "a", "label": 0, "ending0": "b"}', "the field 'ending0' comes twice"),
        (ROW | {"sent1": "\ud800"}, "'sent1' holds a character that is not Unicode"),
        (ROW | {"id": 7}, "'id' is 7"),
        (ROW | {"id": ""}, "the id '' is not printable text"),
        (ROW | {"id": "a\tb"}, "the id 'a\\tb' is not printable text"),
        (ROW | {"id": "first"}, "the id 'first' comes twice"),
        (ROW | {f"ending{i}": str(i) for i in range(11)}, "the question has 11 options"),
        ([1, 2], "[1, 2] is no record"),
        ('{"id": ', "the line is not JSON"),
        ("[" * 100_000, "the line is not JSON"),
    ],
)
def test_a_malformed_question_names_its_file_and_line(tmp_path, row, message):
    file = write(tmp_path / "q.json", ROW | {"id": "first"}, row)
    with pytest.raises(DataError) as error:
        read_questions(file)
    assert str(error.value).startswith(f"{file}, line 2: {message}")
    assert "\n" not in str(error.value)


def test_files_that_hold_nothing(tmp_path):
    empty = write(tmp_path / "empty.jsonl")
    with pytest.raises(DataError, match="the file holds no passages; a knowledge base needs at least one"):
        read_passages(empty)
    with pytest.raises(DataError, match="the file holds no questions"):
        read_questions(empty)
    with pytest.raises(DataError, match=r"there is no file .*absent\.jsonl; correct the path"):
        read_passages(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_passages(tmp_path)


def test_damaged_files(tmp_path):
    file = write(tmp_path / "p.jsonl.gz", *({"id": str(i), "contents": os.urandom(50).hex()} for i in range(1000)))
    whole = file.read_bytes()
    assert len(read_passages(file)) == 1000
    for damaged in (whole[: len(whole) // 2], whole[:-4] + b"abcd", b"plain text"):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="the gzip file is damaged after line"):
            read_passages(file)
    plain = tmp_path / "latin.jsonl"
    plain.write_bytes(b'{"id": "a", "contents": "x"}\n{"id": "b", "contents": "caf\xe9"}\n')
    with pytest.raises(DataError, match="line 2: the text is not UTF-8"):
        read_passages(plain)


def test_passages_and_gold(tmp_path):
    passages = [{"id": "p1", "contents": "One."}, {"id": "p2", "contents": "Two."}]
    assert read_passages(write(tmp_path / "p.jsonl", *passages)) == [Passage("p1", "One."), Passage("p2", "Two.")]
    with pytest.raises(DataError, match="line 2: the id 'p1' comes twice"):
        read_passages(write(tmp_path / "p.jsonl", passages[0], passages[0]))
    with pytest.raises(DataError, match="line 1: the passage has no text"):
        read_passages(write(tmp_path / "p.jsonl", {"id": "p", "contents": "\n"}))
    rows = [{"split": "test", "question_id": "q", "passage_ids": ids} for ids in (["p1"], ["p2", "p1"])]
    assert read_gold(write(tmp_path / "g.jsonl", *rows)) == {"q": {"p1", "p2"}}
    with pytest.raises(DataError, match="line 1: 'passage_ids' is 'p1'; a list of texts is needed"):
        read_gold(write(tmp_path / "g.jsonl", {"question_id": "q", "passage_ids": "p1"}))


def test_recorded_rationales(tmp_path):
    file = write(tmp_path / "r.jsonl.gz", {"idx": 3, "rationales": ["a", ""]}, {"idx": 0, "rationales": []})
    assert read_recorded_rationales(file) == read_recorded_rationales(file, 4) == {3: ["a"], 0: []}
    with pytest.raises(
        DataError, match=r"line 1: there is no question 3 among the 3 of train\.json; count them from 0"
    ):
        read_recorded_rationales(file, 3)
    with pytest.raises(
        DataError, match=r"line 2: the idx 3 comes twice \(3 in lines 1, 2\); put all rationales of a question"
    ):
        read_recorded_rationales(write(file, {"idx": 3, "rationales": []}, {"idx": 3, "rationales": []}))
    with pytest.raises(DataError, match="line 1: 'rationales' is 5"):
        read_recorded_rationales(write(file, {"idx": 3, "rationales": [5]}))


def test_what_a_dataset_lacks_comes_out_empty(tmp_path):
    data = read_kard(release(tmp_path, test=[ROW]), "toy")
    assert data.splits == {"train": [], "dev": [], "test": [Question("q1", "Why?", ("a", "b"), 1)]}
    assert (data.passages, data.gold) == ([], {})


def test_an_id_means_one_question_in_all_splits(tmp_path):
    passages, gold = [{"id": "p", "contents": "One."}], [{"split": "test", "question_id": "q1", "passage_ids": ["p"]}]
    data = read_kard(release(tmp_path, dev=[ROW], test=[ROW], passages=passages, gold=gold), "toy")
    assert data.splits["dev"] == data.splits["test"] == [Question("q1", "Why?", ("a", "b"), 1)]
    assert data.gold == {"q1": {"p"}}
    with pytest.raises(DataError, match="two splits have different questions with the id 'q1'"):
        read_kard(release(tmp_path, dev=[ROW | {"label": 0}]), "toy")


def test_gold_must_be_about_what_exists(tmp_path):
    passages, gold = [{"id": "p", "contents": "One."}], [{"question_id": "q1", "passage_ids": ["p9"]}]
    with pytest.raises(DataError, match="line 1: there is no passage 'p9'; add it to the passages"):
        read_kard(release(tmp_path, test=[ROW], passages=passages, gold=gold), "toy")
    with pytest.raises(DataError, match="line 1: there is no question 'q9'; correct question_id"):
        read_kard(release(tmp_path, gold=[{"question_id": "q9", "passage_ids": []}]), "toy")


@pytest.mark.parametrize("name", ["tyo", "..", "", "../kb"])
def test_a_wrong_name_lists_the_datasets(tmp_path, name):
    with pytest.raises(DataError, match="the datasets there are toy\\): correct the name, or data_dir"):
        read_kard(release(tmp_path, test=[ROW]), name)


def test_a_wrong_data_dir(tmp_path):
    with pytest.raises(DataError, match=r"there is no kard/<dataset>/test\.json there"):
        read_kard(tmp_path / "absent", "toy")


# Your own data

OWN = {"id": "q1", "question": "Why?", "options": ["a", "b"], "answer": "B"}


def own(root: Path, *questions: object, **files: list[object]) -> Path:
    """Your own data's layout, with a question for training and one for the test where none are given."""
    splits = [OWN | {"split": "train"}, OWN | {"id": "q2", "question": "How?", "split": "test"}]
    write(root / "questions.jsonl", *(questions or splits))
    for stem, rows in files.items():
        write(root / f"{stem}.jsonl", *rows)
    return root


def test_your_own_data_from_two_files(tmp_path):
    data = read_own(own(tmp_path, passages=[{"id": "p", "contents": "One."}]))
    assert data.splits == {"train": [Question("q1", "Why?", ("a", "b"), 1)], "dev": [],
                           "test": [Question("q2", "How?", ("a", "b"), 1)]}  # fmt: skip
    assert data.passages == PassageFile(tmp_path / "passages.jsonl") and data.gold == {}
    assert list(data.passages) == list(data.passages) == [Passage("p", "One.")]  # read anew
    (tmp_path / "passages.jsonl").unlink()
    assert read_own(tmp_path).passages == []


def test_what_is_written_is_read(tmp_path):
    splits = {
        "train": [Question("q1", 'Why, "so"?', ("a", "b;", "c\n"), 2)],
        "dev": [],
        "test": [Question("é", "x", ("yes", "no"), 0)],
    }
    data = Dataset("own", splits, [Passage("p1", "Öne.\n"), Passage("p2", "Two.")], {"q1": frozenset({"p1", "p2"})})
    write_own(tmp_path, data, {"q1": ["because", "so"]})
    read = read_own(tmp_path)
    assert (read.splits, list(read.passages), read.gold) == (data.splits, data.passages, data.gold)
    assert read_own_rationales(tmp_path / "rationales.jsonl", {"q1"}) == {"q1": ["because", "so"]}


def test_a_table_is_read_like_lines(tmp_path):
    table = 'id,question,A,B,C,answer,split\r\nq1,"Why, so?",a,"b\r\nc",, b ,train\r\n\r\nq2,How?,a,b,c,C,test\r\n'
    (tmp_path / "q.csv").write_text("\ufeff" + table, newline="")
    splits = read_own_questions(tmp_path / "q.csv")
    assert splits["train"] == [Question("q1", "Why, so?", ("a", "b\r\nc"), 1)]
    assert splits["test"] == [Question("q2", "How?", ("a", "b", "c"), 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,question,A,B,answer\nq1,Why?,a,b,A,more\n", "line 2: the row has more cells than the header"),
        ("id,question,A,B,answer\nq1,Why?,a\n", "line 2: the row has fewer cells than the header"),
        ('id,question,A,B,answer\nq1,"Why?,a,b,A\n', "line 2: the row is not CSV"),
        ('id,question,A,B,answer\nq1,"Why"?,a,b,A\n', "line 2: the row is not CSV"),
        ("id;question;A;B;answer\nq1;Why?;a;b;A\n", "line 1: the cells are separated by ';'; save the table with"),
        ("id,question,A,B,D,answer\nq1,Why?,a,b,d,A\n", "line 2: there is D but no C; name the options without a gap"),
        ("id,question,B,C,answer\nq1,Why?,b,c,B\n", "line 2: there is C but no A"),
        ("id,question,A,B, C,answer\nq1,Why?,a,b,c,A\n", "line 2: the field ' C' is not read; name it 'C'"),
        ("id,question,A,B,c,answer\nq1,Why?,a,b,c,A\n", "line 2: the field 'c' is not read; name it 'C'"),
        ("id,question,A,B,answer,Split\nq1,Why?,a,b,A,test\n", "line 2: the field 'Split' is not read; name it 's"),
        ("id,question,A,B,answer,A\nq1,Why?,a,b,A,test\n", "line 2: the field 'A' comes twice"),
        (f"id,question,{','.join('ABCDEFGHIJK')},answer\nq,Why?,{'x,' * 11}A\n", "line 2: the question has 11 options"),
        ("id,question,A,B,answer,\nq1,Why?,a,b,A,c\n", "line 2: a cell stands in a column without a name"),
        ("id,question,A,B,options,answer\nq1,Why?,a,b,x,A\n", "line 2: there are options and the columns A, B, ..."),
        ("id,question,A,B,answer\nq1,Why?,a,b,C\n", "line 2: the answer 'C' is none of A, B"),
        ("id,question,A,B,answer\n", "the file holds no questions"),
        ("", "the file holds no questions"),
    ],
)
def test_a_malformed_table_names_its_line(tmp_path, text, message):
    (tmp_path / "q.csv").write_text(text)
    with pytest.raises(DataError) as error:
        read_own_questions(tmp_path / "q.csv")
    assert message in str(error.value) and str(error.value).startswith(str(tmp_path / "q.csv"))
    (tmp_path / "q.csv").write_bytes(b"id,question\nq1,caf\xe9\n")
    with pytest.raises(DataError, match=r"q\.csv, line 2: the text is not UTF-8"):
        read_own_questions(tmp_path / "q.csv")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (OWN, "the id 'q1' comes twice"),
        (OWN | {"id": "q", "answer": "C"}, "the answer 'C' is none of A, B; write a letter"),
        (OWN | {"id": "q", "answer": 1}, "'answer' is 1"),
        (OWN | {"id": "q", "answer": ""}, "the answer '' is none of A, B"),
        (OWN | {"id": "q", "answer": "AB"}, "the answer 'AB' is none of A, B"),
        (OWN | {"id": "q", "options": ["a"]}, "the question has fewer than two options; fill in options"),
        (OWN | {"id": "q", "options": ["a", "b", "A "]}, "two options are the same; correct one of them"),
        (OWN | {"id": "q", "options": "ab"}, "'options' is 'ab'; a list of texts is needed"),
        (OWN | {"id": "q", "options": ["a", "", "b"]}, "an option is missing before another one"),
        (OWN | {"id": "q", "options": [*"abcdefghijk"]}, "the question has 11 options"),
        (
            {"id": "q", "question": "Why?", "answer": "A"},
            "the question has fewer than two options; fill in the columns",
        ),
        (OWN | {"id": "q", "question": " "}, "the question has no text"),
        (OWN | {"id": "q", "split": "validation"}, "the split 'validation' is none of train, dev, test"),
        (OWN | {"id": "q", "split": "dev"}, "not all questions name a split"),
        (["q"], "['q'] is no record"),
    ],
)
def test_a_malformed_question_of_your_own_names_its_line(tmp_path, row, message):
    file = own(tmp_path, OWN, row) / "questions.jsonl"
    with pytest.raises(DataError) as error:
        read_own_questions(file)
    assert str(error.value).startswith(f"{file}, line 2: {message}") and "\n" not in str(error.value)


def test_a_split_is_drawn_by_the_text(tmp_path):
    rows = [OWN | {"id": str(i), "question": f"Why {i // 2}?", "options": [str(i), "b"]} for i in range(1000)]
    splits = read_own_questions(write(tmp_path / "q.jsonl", *rows))
    assert [round(len(splits[split]) / 100) for split in ("train", "dev", "test")] == [7, 1, 2]
    texts = [{q.text for q in questions} for questions in splits.values()]
    assert (
        not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]
    )  # though every text comes twice
    fewer = read_own_questions(write(tmp_path / "q.jsonl", *rows[::3]))
    assert all(set(fewer[split]) <= set(splits[split]) for split in splits)


def test_what_your_own_data_lack(tmp_path):
    with pytest.raises(
        DataError, match=r"there is no questions\.jsonl or questions\.csv in .*; put one|: put one there"
    ):
        read_own(tmp_path)
    with pytest.raises(DataError, match="no question is in the split 'test'; add questions or set the field split"):
        read_own(own(tmp_path, OWN | {"split": "train"}))
    (tmp_path / "questions.csv").write_text("id\n")
    with pytest.raises(DataError, match=r"has both questions\.jsonl and questions\.csv: remove the one"):
        read_own(tmp_path)
    (tmp_path / "questions.csv").unlink()
    passages = [{"id": "p", "contents": "One."}]
    with pytest.raises(DataError, match=r"gold\.jsonl, line 1: there is no question 'q9'; correct question_id"):
        read_own(own(tmp_path, passages=passages, gold=[{"question_id": "q9", "passage_ids": ["p"]}]))
    with pytest.raises(DataError, match=r"gold\.jsonl, line 1: there is no passage 'p9'; add it to the passages"):
        read_own(own(tmp_path, passages=passages, gold=[{"question_id": "q1", "passage_ids": ["p", "p9"]}]))
    rationales = write(tmp_path / "r.jsonl", *2 * [{"question_id": "q1", "rationales": ["a"]}])
    with pytest.raises(
        DataError, match=r"line 2: the question_id 'q1' comes twice \('q1' in lines 1, 2\); put all rat"
    ):
        read_own_rationales(rationales, {"q1"})
    with pytest.raises(DataError, match="line 1: there is no question 'q1'; correct question_id"):
        read_own_rationales(rationales, {"q2"})


def test_a_cell_is_as_long_as_it_is_and_empty_columns_are_none(tmp_path):
    text = "word " * 50_000
    (tmp_path / "q.csv").write_text(f"id,question,A,B,answer,,\nq1,{text},a,b,A,,\n,,,,,,\n")
    (question,) = [q for questions in read_own_questions(tmp_path / "q.csv").values() for q in questions]
    assert question == Question("q1", text, ("a", "b"), 0)


def test_what_is_found_and_not_read_is_said(tmp_path, capsys):
    say.cache_clear()
    rows = [OWN | {"split": "train", "fold": "test"}, OWN | {"id": "q2", "question": " why?", "split": "test"}]
    own(tmp_path, *rows, passages=[{"id": "p", "contents": "One.", "title": "Uno"}])
    (tmp_path / "notes.txt").write_text("")
    list(read_own(tmp_path).passages)
    said = capsys.readouterr().err.splitlines()
    assert [line.removeprefix(f"{tmp_path}") for line in said] == [
        "/questions.jsonl: not read: the fields 'fold'",
        "/questions.jsonl: 1 texts of test are in train too: ' why?'",
        ": not read: notes.txt (files that are read begin with questions, passages, gold, rationales)",
        "/passages.jsonl: not read: the fields 'title'",
    ]


def test_files_of_a_release_that_nobody_reads_are_said_or_refused(tmp_path, capsys):
    say.cache_clear()
    release(tmp_path, test=[ROW], passages=[{"id": "p", "contents": "One."}])
    for name in ("kard/toy/notes.txt", "kard/toy/rationales_train.jsonl", "kb/toy/search_spaces.jsonl.gz"):
        (tmp_path / name).write_text("")
    read_kard(tmp_path, "toy")
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}/kard/toy: not read: notes.txt (files that are read begin with train, dev, test, rationales_train)",
        f"{tmp_path}/kb/toy: not read: search_spaces.jsonl.gz (files that are read begin with passages, gold)",
    ]
    (tmp_path / "kard/toy/train.jsonl").write_text("")
    with pytest.raises(DataError, match=r"train\.jsonl is not read: convert it to train\.json, or remove it"):
        read_kard(tmp_path, "toy")


@pytest.mark.parametrize("name", ["passages.csv", "gold.json", "Rationales.jsonl", "rationales.txt", "questions.tsv"])
def test_a_file_in_a_form_that_nobody_reads_is_refused(tmp_path, name):
    own(tmp_path)
    if name.startswith("questions"):
        (tmp_path / "questions.jsonl").unlink()
    (tmp_path / name).write_text("x")
    lines = name.partition(".")[0].lower() + ".jsonl"
    with pytest.raises(DataError, match=f"{name} is not read: convert it to {lines}, or remove it"):
        find_own(tmp_path)


def test_every_file_may_be_compressed(tmp_path):
    data = read_own(own(tmp_path / "plain", passages=[{"id": "p", "contents": "One."}],
                        gold=[{"question_id": "q1", "passage_ids": ["p"]}]))  # fmt: skip
    for file in (tmp_path / "plain").iterdir():
        write(tmp_path / "packed" / f"{file.name}.gz", *file.read_text().splitlines())
    packed = read_own(tmp_path / "packed")
    assert (packed.splits, [*packed.passages], packed.gold) == (data.splits, [*data.passages], data.gold)
    kb = {"passages": [{"id": "p", "contents": "One."}], "gold": [{"question_id": "q1", "passage_ids": ["p"]}]}
    release(tmp_path / "release", test=[ROW])
    for stem, rows in kb.items():
        write(tmp_path / "release" / "kb" / "toy" / f"{stem}.jsonl", *rows)
    assert read_kard(tmp_path / "release", "toy").gold == {"q1": {"p"}}


def test_blank_rationales_are_none(tmp_path):
    file = write(tmp_path / "r.jsonl", {"question_id": "q1", "rationales": ["", " so ", "  "]})
    assert read_own_rationales(file, {"q1"}) == {"q1": [" so "]}


def read_strangers(path):
    """All that the readers of your own data make of a folder."""
    data = read_own(path)
    files, ids = find_own(path), {q.id for questions in data.splits.values() for q in questions}
    return data, [*data.passages], read_own_rationales(files["rationales"], ids) if "rationales" in files else {}


@pytest.mark.parametrize(("name", "expected"), json.loads((STRANGERS / "own.json").read_text()).items())
def test_what_strangers_bring_is_read_whole_or_refused(name, expected, capsys):
    say.cache_clear()
    folder = STRANGERS / "own" / name
    if "error" in expected:
        with pytest.raises(DataError) as error:
            read_strangers(folder)
        assert expected["error"] in str(error.value).replace(f"{folder}/", "") and "\n" not in str(error.value)
        return
    data, passages, rationales = read_strangers(folder)
    assert {s: [[q.id, q.answer, *q.options] for q in qs] for s, qs in data.splits.items()} == expected["splits"]
    assert [p.id for p in passages] == expected["passages"] and rationales == expected["rationales"]
    assert {id: sorted(passages) for id, passages in data.gold.items()} == expected["gold"]
    assert capsys.readouterr().err.replace(f"{folder}", "").splitlines() == expected["said"]


def spoil(data, table):
    """One change of a table's cells, header first, that a reader must notice or can do without."""
    table = [list(row) for row in table]
    row, column = data.draw(st.integers(0, len(table) - 1)), data.draw(st.integers(0, len(table[0]) - 1))
    change = data.draw(st.sampled_from(["drop", "double", "move", "cut", "fill", "swap case"]))
    if change in ("drop", "double"):
        for cells in table:
            cells[column : column + 1] = [cells[column]] * (2 if change == "double" else 0)
    elif change == "move":
        for cells in table:
            cells.insert(0, cells.pop(column))
    elif change == "cut":
        table[row] = table[row][:column]
    elif change == "fill":
        table[row][column] = data.draw(st.text(max_size=4))
    else:
        table[row][column] = table[row][column].swapcase()
    return table


@given(st.data())
def test_a_spoilt_table_is_read_right_or_refused_with_its_line(tmp_path_factory, data):
    """A cell of an option is the option, whatever else happens: none is lost or takes another's place."""
    size = data.draw(st.integers(2, 12))
    header = ["id", "question", *ascii_uppercase[:size], "answer", "split"]
    rows = [[f"q{i}", f"Why {i}?", *(f"{letter}{i}" for letter in ascii_uppercase[:size]), "B", s]
            for i, s in enumerate(["train", "test"])]  # fmt: skip
    table = spoil(data, [header, *rows])
    file = tmp_path_factory.getbasetemp() / "spoilt.csv"
    with open(file, "w", newline="", encoding="utf-8", errors="replace") as out:
        csv.writer(out).writerows(table)
    try:
        splits = read_own_questions(file)
    except DataError as error:
        assert re.match(rf"{re.escape(str(file))}(, line \d+)?: ", str(error)) and "\n" not in str(error)
        return
    written = [dict(zip(table[0], row, strict=False)) for row in table[1:] if any(row)]
    options = [[row[letter] for letter in ascii_uppercase if row.get(letter, "").strip()] for row in written]
    found = [[*q.options] for q in splits["train"] + splits["dev"] + splits["test"]]
    assert sorted(found) == sorted(options) and max(map(len, found)) <= 10
    if "split" in table[0]:
        assert [len(splits["train"]), len(splits["test"])] == [
            sum(row["split"].strip() == split for row in written) for split in ("train", "test")
        ] or not any(row["split"].strip() for row in written)


@given(text=st.text())
def test_any_table_is_read_or_refused_in_one_sentence(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "any.csv"
    for content in (text, f"id,question,A,B,answer\n{text}", f"id,question,A,B,answer\nq,{text},b,c,A"):
        file.write_text(content, "utf-8", "replace", newline="")
        try:
            read_own_questions(file)
        except DataError as error:
            assert str(error).startswith(str(file)) and "\n" not in str(error)


@given(contents=st.lists(st.text().filter(str.strip), min_size=1))
def test_any_text_survives(tmp_path_factory, contents):
    file = tmp_path_factory.getbasetemp() / "any.jsonl.gz"
    rows = [{"id": str(i), "contents": text} for i, text in enumerate(contents)]
    write(file, *(json.dumps(row, ensure_ascii=False) for row in rows))
    assert [p.text for p in read_passages(file)] == contents


@given(line=st.text())
def test_any_line_is_read_or_refused_in_one_sentence(tmp_path_factory, line):
    file = write(tmp_path_factory.getbasetemp() / "line.jsonl", line)
    for read in (read_questions, read_passages, read_gold, read_recorded_rationales):
        try:
            read(file)
        except DataError as error:
            assert str(error).startswith(str(file)) and "\n" not in str(error)


LINES = [  # a reader, and a line that holds no more than it needs
    (read_questions, {"id": "q", "sent1": "Why?", "ending0": "a", "ending1": "b", "label": 1}),
    (read_passages, {"id": "p", "contents": "One."}),
    (read_gold, {"question_id": "q", "passage_ids": ["p"]}),
    (read_recorded_rationales, {"idx": 0, "rationales": ["because"]}),
    (read_own_questions, OWN),
    (lambda file: read_own_rationales(file, {"q1"}), {"question_id": "q1", "rationales": ["because"]}),
]
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = plain | st.lists(plain, max_size=3) | st.dictionaries(st.text(max_size=2), plain, max_size=2)


@given(st.sampled_from(LINES), st.sampled_from(["drop", "double", "swap case", "fill"]), values, st.data())
def test_a_spoilt_line_is_refused_with_its_number(tmp_path_factory, reader, change, value, data):
    """A field that is missing, twice there or misspelt never passes; another value may if it is of the same type."""
    read, line = reader
    name = data.draw(st.sampled_from([*line]))
    spoilt = {"drop": [], "double": [(name, line[name]), (name, value)], "swap case": [(name.swapcase(), line[name])]}
    pairs = [pair for pair in line.items() if pair[0] != name] + spoilt.get(change, [(name, value)])
    text = ", ".join(f"{json.dumps(n)}: {json.dumps(v)}" for n, v in pairs)
    file = write(tmp_path_factory.getbasetemp() / "spoilt.jsonl", "", f"{{{text}}}")
    try:
        read(file)
    except DataError as error:
        assert str(error).startswith(f"{file}, line 2: ") and "\n" not in str(error)
    else:
        assert change == "fill" and type(value) is type(line[name])


@pytest.mark.skipif(not REAL.is_dir(), reason=f"KARD's released questions are not at {REAL}; set KARD_DATA")
def test_the_released_datasets():
    sizes = {
        "obqa": (4957, 500, 500, 7877, 1000),
        "strategyqa": (1603, 687, 687, 24094, 1994),
        "medqa_usmle_hf": (0, 1272, 1273, 0, 0),
    }
    for name, expected in sizes.items():
        data = read_kard(REAL, name)
        assert (*map(len, data.splits.values()), len(data.passages), len(data.gold)) == expected
        assert {len(q.options) for qs in data.splits.values() for q in qs} == {2 if name == "strategyqa" else 4}
    assert len(read_recorded_rationales(REAL / "kard/strategyqa/rationales_train.jsonl.gz")) == 1603
