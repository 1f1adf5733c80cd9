"""The results that the README and the pages of `docs/` show: the papers' numbers beside ours, verdicts, all figures.

`kard reproduce --publish` writes them between the two markers of each page, so that no number there is typed.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kardlib import is_smollm2
from kardlib.artifacts.disk import write_text
from kardlib.knobs import flatten
from kardlib.presets import GROWING, preset
from kardlib.registry import REGISTRY, label
from kardlib.report.captions import DATASETS, find_caption
from kardlib.report.claims import by_size, judge, read_claims, read_rows, summarize, tally
from kardlib.report.combined import MANY_WORLDS, mean_rows
from kardlib.report.drawings.reaugkd import plot_glue
from kardlib.report.figures import read_provenance, save_figure
from kardlib.report.papers import escape, paper_tables
from kardlib.report.reported import find_table
from kardlib.report.rows import (
    ASKED,
    MOST_UNREAD,
    gained,
    in_digits,
    in_order,
    measured,
    only,
    read_table,
    with_unread,
)
from kardlib.settings import GLUE_TASKS

BEGIN, END = "<!-- results: made by kard reproduce --publish -->", "<!-- end of results -->"

GLUE = "13_glue"  # the figure that shows what those below do
OF_TASKS = [f"{figure}_{task}" for figure in ("13_reaugkd", "13_where", "18_compression") for task in GLUE_TASKS]
HEADLINE = (
    "chance", "longest_option", "bag_of_words", "named_by_reranker", "fine_tuning", "reasoning_distillation",
    "undistilled_reranker", "kard_reranker", "kard_shown_reranker",
)  # fmt: skip
LEADS = {  # whose lead over whom is told of every dataset
    ("kard_reranker", "reasoning_distillation"): "KARD (reranker) over RD, the papers' main claim",
    ("kard_shown_reranker", "kard_reranker"): "KARD shown in training what it will read, over KARD (reranker)",
    ("kard_shown_reranker", "reasoning_distillation"): "KARD shown in training what it will read, over RD",
}
MAIN_TABLES = ("table1_medqa", "table2_strategyqa", "table2_openbookqa")  # of the paper
LIKELIEST = "accuracy_by_total_likelihood"  # the answer is the likeliest option, whatever the student writes
WORLD = DATASETS[""]
IN_WORLD = ("04_strata", "04_main", "11_shown")  # figures of the usual world
STRATA = {"accuracy_never": "never shown", "accuracy_seldom": "seldom", "accuracy_often": "often", "accuracy": "all"}
CROSSINGS = {  # figure -> what it varies, whose line is crossed, and how a crossing is told
    "17_frontier_full": ("in worlds of more ailments, each taught as long", "RD", "from {} ailments on"),
    "17_exposures_full": ("in one world, taught for longer", "KARD", "after {} epochs"),
}
AGAINST = {"hits_gold": "gold", "hits_silver": "silver"}


def in_per_cent(row: Mapping[str, Any]) -> str:
    """The value of a row of results, its interval, if it has one, and what could not be read."""
    return with_unread(in_digits(row, ".1f", 100), row["unread"])


def in_points(row: Mapping[str, Any]) -> str:
    """A gain and its interval, if it has one; where too much could not be read, that alone."""
    mostly = row["unread"] if (row["unread"] or 0) > MOST_UNREAD else None
    return with_unread(f"{in_digits(row, '+.1f', 100)} points", mostly)


def find_tables(figures: Path, name: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """A figure's data on every dataset that it is there of, by the dataset's title."""
    for suffix, dataset in DATASETS.items():
        if (path := figures / f"{name}{suffix}.csv").is_file():
            yield dataset, read_table(path)


def side_by_side(columns: Mapping[str, Mapping[str, str]], order: Iterable[str] = REGISTRY) -> list[str]:
    """A table from its columns, title -> method -> cell; empty where a column has no cell."""
    found = {method for column in columns.values() for method in column}
    lines = [[label(m), *(column.get(m, "") for column in columns.values())] for m in order if m in found]
    return as_markdown(["method", *columns], lines)


def headline_table(figures: Path) -> list[str]:
    """The middle student of the closed world beside its floors, and every student that answered real questions, beside
    the paper's smallest one.

    Where a row's letters could mostly not be read, the likeliest options stand beside them. In the closed world what is
    shown in training has a figure of its own.
    """
    world = pd.concat(read_table(path) for path in (figures / f"{name}.csv" for name in IN_WORLD) if path.is_file())
    papers = {paper.dataset: paper for paper in map(find_table, MAIN_TABLES)}
    columns = {title: _headline_cells(world, preset().middle, metric) for metric, title in STRATA.items()}
    for dataset, table in find_tables(figures, "04_main"):
        if dataset != WORLD:
            unread = table[table["method"].isin(HEADLINE)]["unread"].max() > MOST_UNREAD
            for student in filter(None, table["student"].unique()):
                columns[f"{dataset}, {student}"] = _headline_cells(table, student, "accuracy")
                if unread and LIKELIEST in set(table["metric"]):
                    columns[f"{dataset}, {student}, likeliest option"] = _headline_cells(table, student, LIKELIEST)
            if paper := papers.get(dataset):
                told = {m: f"{paper.numbers(m, ['base'])[0]:.1f}" for m in HEADLINE if m in paper.rows}
                columns[f"{dataset}, paper's Flan-T5 base"] = told
    return side_by_side(columns, HEADLINE)


def _headline_cells(table: pd.DataFrame, student: str, metric: str) -> dict[str, str]:
    """A column of the headline's table: what the methods of `HEADLINE` reach; how often guessing is right, in all."""
    rows = measured(table)
    rows = rows[rows["method"].isin(HEADLINE) & rows["student"].isin(["", student])]
    floor = (rows["method"] == "chance") & (rows["metric"] == "accuracy") & (metric == LIKELIEST)
    return {row["method"]: in_per_cent(row) for row in rows[(rows["metric"] == metric) | floor].to_dict("records")}


def lead_lines(figures: Path) -> list[str]:
    """How far one method is above another (`LEADS`) on every dataset that was run, in many worlds if there are rows."""
    tables = dict(find_tables(figures, "04_main"))
    if (path := figures / f"{MANY_WORLDS}.csv").is_file():
        many = read_table(path)
        tables.pop(WORLD, None)
        tables = {f"{many['seed'].nunique()} closed worlds": many} | tables
    lines = []
    for (method, over), said in LEADS.items():
        parts = []
        for name, table in tables.items():
            gains = only(gained(table), metric="accuracy", knob="", method=method, over=over, over_student="")
            if told := {row["student"]: f"{in_points(row)} ({row['student']})" for row in gains.to_dict("records")}:
                parts.append(f"{name} {', '.join(told[student] for student in sorted(told, key=by_size))}")
        if parts:
            lines.append(f"- {said}: {'; '.join(parts)}.")
    return lines


def other_findings(figures: Path) -> list[str]:
    """Likeliest options, crossings, first passages and ReAugKD's means: a line for each figure that is there."""
    return [*likeliest_lines(figures), *crossing_lines(figures), *first_passage_lines(figures), *mean_lines(figures)]


def likeliest_lines(figures: Path) -> list[str]:
    """What KARD gains over the undistilled student in the closed world, by the likeliest options."""
    if not (path := figures / "04_main.csv").is_file():
        return []
    rows = only(read_table(path), metric=LIKELIEST).query("over in ('', 'undistilled_reranker')")
    cells = {row["method"]: in_per_cent(row) for row in measured(rows).to_dict("records")}
    return [
        f"- Closed world, answers read as the likeliest option, {row['student']}: {escape(label(row['method']))} "
        f"{cells[row['method']]} %, {escape(label(row['over']))} {cells[row['over']]} %; gain {in_points(row)}."
        for row in gained(rows).to_dict("records")
    ]


def crossing_lines(figures: Path) -> list[str]:
    """Where one student overtakes another, as worlds grow and as students are taught for longer."""
    lines = []
    for name, (where, over, said) in CROSSINGS.items():
        if (path := figures / f"{name}.csv").is_file():
            found = []
            for method, rows in only(read_table(path), metric="crossing").groupby("method", sort=False):
                told = {row["student"]: f"{in_place(row, said)} ({row['student']})" for row in rows.to_dict("records")}
                by_student = ", ".join(told[student] for student in sorted(told, key=by_size))
                found.append(f"{escape(label(str(method)))} overtakes {over} {by_student}")
            lines.append(f"- Closed world, shown often, {where}: {'; '.join(found)}.")
    return lines


def in_place(row: Mapping[str, Any], said: str) -> str:
    """Where one line crosses another; 0 is before all that was tried, and infinity beyond it."""
    return {0: "everywhere", math.inf: "nowhere"}.get(row["value"]) or said.format(in_digits(row, ".3g"))


def first_passage_lines(figures: Path) -> list[str]:
    """How often the first passage for a real question is a silver one, by the reranker and by BM25."""
    lines = []
    for dataset, table in find_tables(figures, "03_hits"):
        if dataset != WORLD:
            first = only(table, metric="hits_silver", k=1)
            cells = {row["method"]: in_per_cent(row) for row in measured(first).to_dict("records")}
            gain = only(gained(first), method="reranker", over="bm25").to_dict("records")[0]
            lines.append(
                f"- {dataset}, first passage is a silver one: reranker {cells['reranker']} % of questions, BM25 "
                f"{cells['bm25']} %; gain {in_points(gain)}."
            )
    return lines


def mean_lines(figures: Path) -> list[str]:
    """ReAugKD's gains as means over the tasks of GLUE, a line for each scale."""
    over = {"reaugkd_no_retrieval": "itself without retrieval", "best_on_average": "the best earlier method"}
    told: dict[tuple[str, str], list[str]] = {}
    for mean in mean_rows(read_rows([figures])):
        if mean["over"] in over:
            gain = f"over {over[mean['over']]} {in_points(mean)}"
            told.setdefault((mean["dataset"], mean["scale"]), []).append(gain)
    return [
        f"- ReAugKD on GLUE, {tasks}, {scale} scale: gain {', '.join(gains)}." for (tasks, scale), gains in told.items()
    ]


def main_table(figures: Path) -> list[str]:
    """Tables 1 and 2 of the paper beside ours."""
    table = only(measured(read_table(figures / "04_main.csv")), metric="accuracy")
    students = preset().students
    papers = [find_table(name) for name in MAIN_TABLES]
    ours = {(row["method"], row["student"]): in_per_cent(row) for row in table.to_dict("records")}
    lines = []
    for method in in_order(table)["method"].unique():
        if method != "chance":
            cells = [f"{p.numbers(method, ['base'])[0]:.2f}" if method in p.rows else "" for p in papers]
            cells += [ours.get((method, student)) or ours[method, ""] for student in students]
            lines.append([label(method), *cells])
    shown = as_markdown(["method", *(paper.dataset for paper in papers), *students], lines)
    chance = only(table, method="chance")["value"].item()
    return [*shown, "", f"Guessing is right on {100 * chance:.1f} % of the closed world's questions."]


def hits_table(figures: Path) -> list[str]:
    """Figure 4c of the paper beside ours, for every dataset whose figure is there."""
    paper = find_table("figure4c_hits")
    lines = []
    for retriever in paper.rows:
        cells = [f"{value:.1f}" for value in paper.numbers(retriever)]
        lines.append(["silver", f"{paper.dataset}, paper (read off)", label(retriever), *cells])
    for dataset, table in find_tables(figures, "03_hits"):
        table = measured(table).sort_values("metric", kind="stable")
        for (metric, method), rows in table.groupby(["metric", "method"], sort=False):
            cells = [f"{100 * value:.1f}" for value in rows.sort_values("k")["value"]]
            lines.append([AGAINST[metric], dataset, label(method), *cells])
    return as_markdown(["against", "dataset", "retriever", *paper.columns], lines)


def reaugkd_table(figures: Path) -> list[str]:
    """ReAugKD's rows on every task whose figure is there, in per cent."""
    columns: dict[str, dict[str, str]] = {}
    for dataset, table in find_tables(figures, "13_reaugkd"):
        for row in measured(table).to_dict("records"):
            metric = {"accuracy": "", "f1": ", F1"}.get(row["metric"], f", {row['metric']}")
            columns.setdefault(dataset + metric, {})[row["method"]] = in_per_cent(row)
    return side_by_side(columns)


def scorecard_table(figures: Path) -> list[str]:
    """How many verdicts there are of each kind; every claim whose test could have failed, then the others."""
    scorecard = judge(read_claims(), read_rows([figures]))
    found = scorecard["paper"] == "ours"
    parts = {
        "Tests that could have failed": scorecard[scorecard["could_fail"]],
        "Tests that could not: the setting alone decides": scorecard[~scorecard["could_fail"] & ~found],
        "Found here, in no paper": scorecard[~scorecard["could_fail"] & found],
    }
    lines = [f"{tally(scorecard)}."]
    for title, part in parts.items():
        table = summarize(part)
        lines += ["", f"*{title}*", "", *as_markdown(table.columns, table.to_numpy())]
    return lines


def _shown(figures: Path, suffix: str) -> list[Path]:
    """Figures' files; where `GLUE` is, it stands for the figures of single tasks."""
    paths = {path.stem: path for path in sorted(figures.glob(f"*.{suffix}"))}
    return [path for name, path in paths.items() if GLUE not in paths or name not in OF_TASKS]


def gains_tables(figures: Path) -> list[str]:
    """What was gained over others, a table for each figure and metric; the scorecard's own figure repeats others'."""
    lines = []
    for path in _shown(figures, "csv"):
        if not path.stem.startswith("14_"):
            for title, table in paper_tables(path, gain=True):
                lines += ["", f"*{escape(title)}*", "", *as_markdown(table.columns, table.to_numpy())]
    return lines


def as_markdown(header: Iterable[str], lines: Iterable[Iterable[str]]) -> list[str]:
    """A table in Markdown; its cells are shown as they are."""
    first, *rest = (f"| {' | '.join(map(escape, cells))} |" for cells in (header, *lines))
    return [first, "|---" * len([*header]) + "|", *rest]


def show_figures(figures: Path) -> list[str]:
    """Every figure with its caption, under what of the papers it stands beside, with its data and as PDF."""
    lines = []
    for name in [path.stem for path in _shown(figures, "png")]:
        caption = find_caption(name)
        files = f"`{name}`, [data](../figures/{name}.csv), [PDF](../figures/{name}.pdf)"
        unlike = " and ".join(unlike_usual(figures, name).values())
        shown = escape(caption.shows) + (f" Run with {unlike}." if unlike else "")
        lines += [f"**{escape(caption.beside)}** ({files})", "", shown, ""]
        lines += [f"![{escape(caption.shows)}](../figures/{name}.png)", ""]
    return lines


def unlike_usual(figures: Path, name: str) -> dict[str, str]:
    """Of a figure of the scale "real" the settings that its run had where the scale has others by now, in words."""
    made = dict(flatten(read_provenance(figures / f"{name}.png").get("settings", {})))
    if made.get("scale") != "real":
        return {}
    settings = preset("real", made["dataset"], "")
    usual = dict(flatten(settings.model_dump(mode="json")))
    of_kind = {f"student.{name}": value for name, value in settings.student.of(settings.middle)}
    for values in (made, usual):  # what was left open was set to what suits its kind of student
        values |= {knob: of_kind[knob] for knob, value in values.items() if value is None and knob in of_kind}
    others = (knob for knob in sorted({*usual} & {*made} - {"methods", "data_dir"}) if made[knob] != usual[knob])
    return {knob: f"`{knob}={made[knob]}` (usually `{usual[knob]}`)" for knob in others}


def earlier_runs(figures: Path) -> list[str]:
    """Said of figures of SmolLM2's answers whose run had other settings than its scale has now, but for how many seeds,
    questions and methods.
    """
    lines = []
    for path in _shown(figures, "csv"):
        unlike = {knob: said for knob, said in unlike_usual(figures, path.stem).items() if knob not in GROWING}
        if unlike and any(map(is_smollm2, read_table(path)["student"])):
            lines.append(f"- `{path.stem}`: {' and '.join(unlike.values())}")
    said = (
        "On real questions these verdicts are of an earlier student than the main table's (answers that begin with a "
        "letter are `words`, those that name the option's own words alone are `option`):"
    )
    return [said, "", *lines, ""] if lines else []


def show_scorecard(figures: Path) -> list[str]:
    """The tables of both papers beside ours, and every claim with its verdict."""
    (gain,) = find_table("reaugkd_gains").numbers("over_best_earlier")
    first, second = find_table("reaugkd_largest_gains").numbers("over_best_earlier")
    return [
        "## KARD, Tables 1 and 2", "",
        "Accuracy in per cent: the paper's base student on three datasets, our students on the closed world with 95 %",
        "intervals over questions (closed world: ailments) and seeds. Tasks differ: compare the order, not the level.",
        "", *main_table(figures), "",
        "## KARD, Figure 4c", "",
        "Share of questions with a right passage among the first *k*, in per cent. Silver passages are the top 3 that",
        "the teacher's rationales retrieve, gold ones the annotators' (or the world's).",
        "", *hits_table(figures), "",
        "## ReAugKD", "",
        "Accuracy in per cent with 95 % intervals over questions and seeds (teacher: over questions). The paper tells",
        f"no task's accuracy: it is {gain} points above the best earlier method on average, "
        f"{first} and {second} on two tasks.",
        "", *reaugkd_table(figures), "",
        "## Beside the tables", "",
        *other_findings(figures), "",
        "## Claims and verdicts", "",
        "What the papers claim, with a verdict for every dataset, scale and student that was run. The whole 95 %",
        "interval decides: inside what the test asks for ✓ reproduced, outside ✗ not reproduced, else ? undecided.",
        "Gains are in points, shares in per cent, the papers' numbers in theirs. Only tests that could have failed",
        "count. Chance alone: if every true number lay on the edge of what its test asks for. Ruled out: the mean of",
        "the papers' numbers, on the same dataset where they have it, lies outside of the interval.",
        "", *earlier_runs(figures), *scorecard_table(figures), "",
        "## Gains", "",
        "All gains of all figures, with those that no claim speaks of: what a method has more than another on the same",
        "questions, or than itself elsewhere, with 95 % intervals.",
        *gains_tables(figures), "",
    ]  # fmt: skip


def show_headline(figures: Path) -> list[str]:
    """The README's table, the leads, and how many claims have which verdict."""
    verdicts = tally(judge(read_claims(), read_rows([figures])))
    claims = f"- Claims ([scorecard](docs/scorecard.md)): {verdicts}."
    return [*headline_table(figures), "", *lead_lines(figures), claims, ""]


PAGES: dict[str, Callable[[Path], list[str]]] = {
    "README.md": show_headline,
    "docs/scorecard.md": show_scorecard,
    "docs/gallery.md": show_figures,
}


def draw_glue(figures: Path) -> None:
    """Draw `GLUE` from the data of the single tasks' figures that are there; a row that several have, once."""
    paths = [path for name in OF_TASKS if (path := figures / f"{name}.csv").is_file()]
    if paths:
        table = pd.concat(map(read_table, paths)).drop_duplicates([*ASKED, "seed"])
        save_figure(plot_glue(table), GLUE, table, figures, {"data": [path.name for path in paths]})


def refresh_pages(root: Path) -> None:
    """Draw what all tasks are needed for, and write the results of every page that is there anew, in place."""
    draw_glue(root / "figures")
    for name, show in PAGES.items():
        if (page := root / name).is_file():
            write_between(page, BEGIN, END, ["", *show(root / "figures")])


def write_between(page: Path, begin: str, end: str, lines: Iterable[str]) -> None:
    """Replace what stands on a page between two markers."""
    before, rest = page.read_text("utf-8").split(begin)
    after = rest.split(end)[1]
    write_text(page, "\n".join([before + begin, *lines, end + after]))
