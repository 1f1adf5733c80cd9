"""The explorer: questions' whole way under several methods side by side, searched and filtered, as one HTML file.

    data = collect(asked, answered)                            of a grid's cells
    write_explorer(data, settings, "12_explorer", folder)      a file with its data inside: no server, kernel or network
    show_explorer(data, settings)                              the same in a notebook

Anybody may have written the texts, a model among them: they stand in the page as JSON without a letter that HTML knows,
and its script (`explorer.html`) makes text nodes of them.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from IPython.display import HTML
from jinja2.utils import htmlsafe_json_dumps

from kardlib.artifacts.disk import write_text
from kardlib.artifacts.provenance import provenance
from kardlib.data.files import LETTERS, Question
from kardlib.kard.cases import CAUSES, COLOURS, describe, find_causes, judge_sentences, name_gold, show_legend
from kardlib.kard.experiment import Cell, describe_run
from kardlib.kard.methods import METHODS
from kardlib.kard.pipeline import Predictions, PreparedCells
from kardlib.report.folders import figures_folder
from kardlib.settings import RunSettings

PAGE = Path(__file__).with_name("explorer.html")
WHY = ("what it takes was not read", *CAUSES[1:])  # no reranker misses anything for a student that reads nothing


def collect(
    asked: PreparedCells, answered: Mapping[Cell, Predictions], shown: Collection[str] | None = None
) -> dict[str, Any]:
    """What each cell's student read, wrote (its first sample) and answered, of the questions `shown` (ids; None: all).

    Passages, sentences and questions stand once; elsewhere stand their numbers. What worlds of other settings ask under
    the same id are other questions.
    """
    passages, sentences = (defaultdict[tuple[str, str], int](count().__next__) for _ in range(2))
    questions: dict[Question, dict[str, Any]] = {}
    cells = []
    for cell, p in answered.items():
        here, texts, cases = asked[cell].experiment, asked[cell].runs.passages, {}
        told = zip(p.questions, p.passages, p.texts, p.answers, find_causes(here, p), strict=True)
        for q, read, wrote, answer, cause in told:
            if shown is not None and q.id not in shown:
                continue
            if q not in questions:
                about = {"options": len(q.options), **describe(here, q)}
                gold = [passages[name_gold(here, i), texts[i]] for i in sorted(here.data.gold.get(q.id, ()))]
                questions[q] = {"number": len(questions), "gold": gold, "about": {k: v for k, v in about.items() if v}}
            did_read = [passages[name_gold(here, i), texts[i]] for i in read]
            did_write = [sentences[sentence] for sentence in judge_sentences(here.world, wrote[0], read)]
            case = (did_read, did_write, answer, CAUSES.index(cause) if cause else None)
            cases[questions[q]["number"]] = case
        knobs = [f"{name} = {value}" for name, value in cell.knobs if name != "seeds"]
        method = ", ".join([METHODS[cell.method].label, *knobs])
        cells.append({"method": method, "student": cell.student, "seed": cell.seed, "cases": cases})
    known = [vars(q) | {"letters": LETTERS[: len(q.options)]} | details for q, details in questions.items()]
    return {"questions": known, "passages": [*passages], "sentences": [*sentences], "cells": cells}


def make_page(data: Mapping[str, Any], settings: RunSettings) -> str:
    """The page of what `collect` gave."""
    made = provenance() | {"date": None}  # the same results are the same page
    whole = {"about": describe_run(settings), "made": made, "causes": WHY, "colours": COLOURS, **data}
    page = PAGE.read_text("utf-8").replace("LEGEND", show_legend(settings.dataset))
    return page.replace("DATA", htmlsafe_json_dumps(whole, separators=(",", ":")))


def write_explorer(data: Mapping[str, Any], settings: RunSettings, name: str, folder: str | Path | None) -> Path:
    """Write the page as `{name}.html` and return its path; `folder` None: where the run's figures belong."""
    path = Path(folder or figures_folder(settings.model_dump(mode="json"))) / f"{name}.html"
    write_text(path, make_page(data, settings))
    return path


def show_explorer(data: Mapping[str, Any], settings: RunSettings) -> HTML:
    """The page as a notebook's output. It is a document of its own, whose script reaches nothing of the notebook."""
    page = make_page(data, settings).replace("&", "&amp;").replace("'", "&#39;")  # `"` is left: it stands everywhere
    frame = f"<iframe title='Explorer' sandbox='allow-scripts' srcdoc='{page}'"
    return HTML(f"<div>{frame} style='width:100%;height:52em;border:1px solid #ccc'></iframe></div>")
