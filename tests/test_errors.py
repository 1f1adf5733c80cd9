"""What every error holds to, whatever it cites, and how one that a user causes is shown in a notebook."""

import pickle

import nbformat
import pytest
from nbclient import NotebookClient

from kardlib.errors import DataError, KardError, TooLargeError, first_line, suggest

WRONG = "from kardlib.presets import preset\npreset().override({'retrieval.kk': 1})"
SENTENCE = "there is no setting 'retrieval.kk'; did you mean 'retrieval.k'?"


def test_control_characters_that_an_error_cites_reach_nobody() -> None:
    for kind in (KardError, TooLargeError, DataError):
        error = kind("the server said \x1b[2J\x9b2J\x1b]0;owned\x07\r\nand é")
        assert str(error) == str(pickle.loads(pickle.dumps(error))) == "the server said  [2J 2J ]0;owned and é"


def test_a_library_is_cited_with_its_first_line_or_by_its_class():
    for said, shown in (("no such file\n  a stack", "no such file"), ("\n table", "table"), ("", "OSError")):
        assert first_line(OSError(said)) == shown


def test_in_a_notebook_an_error_is_one_red_sentence_and_its_traceback_comes_on_request():
    cells = [nbformat.v4.new_code_cell(source) for source in (WRONG, "%tb", "1 / 0")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, allow_errors=True, kernel_name="python3").execute()
    shown, traced, other = (cell.outputs[-1] for cell in notebook.cells)
    assert (shown.ename, shown.evalue) == ("SettingsError", SENTENCE)
    assert shown.traceback == [f"\x1b[31m{SENTENCE}\x1b[0m", "\x1b[2m(%tb shows the traceback)\x1b[0m"]
    assert "override" in "".join(traced.traceback) and len(traced.traceback) > 3
    assert len(other.traceback) > 2  # what nobody foresaw is shown whole


@pytest.mark.parametrize(("name", "said"), [("obqaa", "; did you mean 'obqa'?"), ("medicine", "")])
def test_only_a_near_name_is_suggested(name, said):
    assert suggest(name, ["world", "obqa", "rte"]) == said
