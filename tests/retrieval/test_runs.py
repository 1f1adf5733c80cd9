"""Run tables: what is written is read, whole or not at all, and malformed ones are named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kardlib.errors import DataError
from kardlib.retrieval.runs import read_run, write_run


@given(
    run=st.dictionaries(
        st.text().filter(str.isprintable),
        st.dictionaries(st.text().filter(str.isprintable), st.floats(allow_nan=False, allow_infinity=False)).map(
            lambda d: list(d.items())
        ),
    )
)
def test_runs_survive_writing(tmp_path_factory, run):
    file = tmp_path_factory.getbasetemp() / "run.tsv"
    write_run(file, run)
    assert read_run(file) == run
    assert list(read_run(file)) == list(run)


def test_a_passage_that_many_queries_found_is_one_text_in_memory(tmp_path):
    write_run(tmp_path / "run.tsv", {f"q{i}": [("passage-1", 1.5)] for i in range(100)})
    assert len({id(passage) for ranked in read_run(tmp_path / "run.tsv").values() for passage, _ in ranked}) == 1


def test_a_run_is_written_whole_or_not_at_all(tmp_path):
    write_run(tmp_path / "run.tsv", {"q": [("p", 1.5)], "none": []})
    assert (tmp_path / "run.tsv").read_text() == "query\trank\tpassage\tscore\nq\t1\tp\t1.5\nnone\t0\t\t\n"
    with pytest.raises(UnicodeEncodeError):
        write_run(tmp_path / "run.tsv", {"q": [("\ud800", 1.0)]})
    assert read_run(tmp_path / "run.tsv") == {"q": [("p", 1.5)], "none": []}


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_not_written_and_no_file_is_blamed(tmp_path, score):
    with pytest.raises(DataError, match=rf"^the model that ranks gave 'p2' the score {score} for 'q', so its order"):
        write_run(tmp_path / "run.tsv", {"q": [("p1", 1.0), ("p2", score)]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "row",
    [
        "q\t1\tp", "q\t2\tp\t1.0", "q\tone\tp\t1.0", "q\t1\tp\tnan", "q\t1\tp\t1.0\t2", '"', "q\t1\tp\t\xff",
        "q\t1\tp\t1.0\nq\t2\tr\tnan", "q\t1\tp\t1.0\nq\t0\t\t",  # a passage, and that there is none
    ],
)  # fmt: skip
def test_a_malformed_run(tmp_path, row):
    (tmp_path / "run.tsv").write_text(f"query\trank\tpassage\tscore\n{row}\n", encoding="latin-1")
    with pytest.raises(DataError, match="not a row of a run table; delete the file and search again"):
        read_run(tmp_path / "run.tsv")


def test_no_run(tmp_path):
    with pytest.raises(DataError, match="there is no run table"):
        read_run(tmp_path / "run.tsv")
    with pytest.raises(DataError, match="cannot be read"):
        read_run(tmp_path)
    (tmp_path / "run.tsv").write_text("q1 Q0 p1 1 2.5 lucene\n")
    with pytest.raises(DataError, match="its first line must name query, rank, passage and score"):
        read_run(tmp_path / "run.tsv")
