"""What is published holds no trace of the machine, and nothing is published where one notebook is unfit."""

import contextlib
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kardlib.report.gallery import BEGIN, END
from kardlib.report.publishing import PublishError, clean_notebook, publish_results


@pytest.mark.parametrize(
    "source, said",
    [
        ("loaded /opt/data/x.bin", "it holds the absolute path /opt/data/x.bin; print no such path"),
        ("\x1b[31m/opt/data/x.bin", "it holds the absolute path /opt/data/x.bin"),
        ("x" * 500_000, "it is 50. KB, more than 400; show less, or smaller"),
        ("x" * 500_000 + ' id="T_12ab3"', "it is 50. KB, more than 400; show less, or smaller"),  # a table's id
    ],
)
def test_publishing_refuses_all_if_one_is_unfit(tmp_path: Path, source: str, said: str) -> None:
    copies = [tmp_path / "01_fine.ipynb", tmp_path / "02_unfit.ipynb"]
    for copy, text in zip(copies, ["1", source], strict=True):
        nbformat.write(notebook_that_prints(text), copy)
    with pytest.raises(PublishError, match=f"^02_unfit.ipynb is not published: {said}"):
        publish_results(copies, True, tmp_path)
    (tmp_path / "README.md").write_text(f"what was found: {BEGIN}")
    with pytest.raises(PublishError, match=f"README.md has lost a marker: results stand between {BEGIN} and {END}"):
        publish_results(copies[:1], True, tmp_path)
    assert not (tmp_path / "notebooks").exists()


def test_how_an_output_is_cut_and_when_it_was_made_is_not_published() -> None:
    """A kernel flushes by the clock, and a provenance holds the date: the same numbers must be the same bytes."""
    texts = []
    for date, pieces in (("2026-11-26T17:00", ["one\n", "two\n"]), ("2026-11-27T03:00", ["one\ntwo\n"])):
        streams = [("stdout", piece) for piece in pieces] + [
            ("stderr", "x\n"),
            ("stdout", f"{{'date': '{date}', 'k': 3}}"),
        ]
        outputs = [nbformat.v4.new_output("stream", name=name, text=text) for name, text in streams]
        outputs.insert(-1, nbformat.v4.new_output("display_data", {"text/plain": "a table"}))
        cell = nbformat.v4.new_code_cell("print()", outputs=outputs, execution_count=1, id="cell")
        texts.append(clean_notebook(nbformat.v4.new_notebook(cells=[cell]), "n", Path("/srv/suite")))
    assert texts[0] == texts[1]
    found = [o.get("text", "shown") for o in nbformat.reads(texts[0], 4).cells[0].outputs]
    assert found == ["one\ntwo\n", "x\n", "shown", "{'k': 3}"]


def notebook_that_prints(text: str) -> nbformat.NotebookNode:
    output = nbformat.v4.new_output("stream", name="stdout", text=text)
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print()", outputs=[output], execution_count=1)])


@given(
    st.text(),
    st.sampled_from([" ", "'", '"', "\n", "(", "=", ""]),
    st.text(st.characters(categories=["L"]), min_size=1),
)
def test_no_path_below_the_repository_gets_through(before: str, mark: str, name: str) -> None:
    root = Path("/srv/somewhere/suite")
    with contextlib.suppress(PublishError):  # the drawn text may hold a path of its own
        text = clean_notebook(notebook_that_prints(f"{before}{mark}{root}/{name} {before}"), "n", root)
        assert "/srv/somewhere" not in text


@pytest.mark.parametrize(
    "text",
    ["a/b/c", "https://example.org/a/b", "and/or yes/no", "</p></div>", "./kardlib/data.py", "~/a/b/c", "3 / 4 / 5"],
)
def test_what_only_looks_like_a_path_is_published(text: str) -> None:
    assert text in clean_notebook(notebook_that_prints(text), "n", Path("/srv/suite"))


@pytest.mark.parametrize(
    "text", ["/home/me/x", "at '/usr/lib/x.so'", "file:///usr/x", "C:\\Users\\me", "path=/a/b", "[/a/b]", "x,/a/b"]
)
def test_paths_are_refused(text: str) -> None:
    with pytest.raises(PublishError, match="absolute path"):
        clean_notebook(notebook_that_prints(text), "n", Path("/srv/suite"))
