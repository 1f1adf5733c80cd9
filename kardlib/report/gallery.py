"""The README's results: the papers' numbers beside those that the figures' data hold, the verdicts, and all figures.

`kard reproduce --publish` writes them between the two markers, so that no number there is typed.
"""

from pathlib import Path

from kardlib.artifacts.store import atomic_write
from kardlib.registry import label
from kardlib.report.claims import judge, read_claims, read_rows, summarize, tally
from kardlib.report.reported import find_table
from kardlib.report.rows import in_order, measured, read_table
from kardlib.settings import preset

BEGIN, END = "<!-- results: made by kard reproduce --publish -->", "<!-- end of results -->"

DATASETS = {"": "closed world", "_obqa": "OpenbookQA", "_strategyqa": "StrategyQA"}
DATASETS |= {"_mrpc": "MRPC", "_rte": "RTE", "_sst2": "SST-2"}
AGAINST = {"hits_gold": "gold", "hits_silver": "silver"}
COVERS = {  # notebook -> what the figures that it draws stand beside in the papers
    "00": "KARD, Sections 2 and 4",
    "01": "KARD, Section 3",
    "02": "KARD, Section 4",
    "03": "KARD, Figure 4c",
    "04": "KARD, Tables 1 and 2",
    "05": "KARD, Figure 4a",
    "06": "KARD, Figure 4b",
    "07": "KARD, Table 3",
    "08": "KARD, Table 4",
    "09": "KARD, Table 5",
    "10": "KARD, Figure 3",
    "11": "KARD, Table 7",
    "12": "KARD, Table 6",
    "13": "ReAugKD",
    "14": "Both papers: all gains",
    "15": "Your own data: an example",
    "16": "KARD: the paper and its released code",
}


def main_table(figures: Path) -> list[str]:
    """Tables 1 and 2 of the paper beside ours."""
    table = measured(read_table(figures / "04_main.csv"))
    table = table[table.metric == "accuracy"]
    students = preset().students
    papers = [find_table(name) for name in ("table1_medqa", "table2_strategyqa", "table2_openbookqa")]
    ours = {
        (r.method, r.student): f"{100 * r.value:.1f} [{100 * r.low:.1f}, {100 * r.high:.1f}]"
        for r in table.itertuples()
    }
    lines = [
        f"| method | {' | '.join(paper.dataset for paper in papers)} | {' | '.join(students)} |",
        "|---|" + "---|" * (len(papers) + len(students)),
    ]
    for method in in_order(table).method.drop_duplicates():
        if method != "chance":
            cells = [f"{p.numbers(method, ['base'])[0]:.2f}" if method in p.rows else "" for p in papers]
            cells += [ours.get((method, student)) or ours[method, ""] for student in students]
            lines.append(f"| {label(method)} | {' | '.join(cells)} |")
    chance = table[table.method == "chance"].value.item()
    return [*lines, "", f"Guessing is right on {100 * chance:.1f} % of the closed world's questions."]


def hits_table(figures: Path) -> list[str]:
    """Figure 4c of the paper beside ours, for every dataset whose figure is there."""
    paper = find_table("figure4c_hits")
    lines = [f"| against | dataset | retriever | {' | '.join(paper.columns)} |", "|---|---|---|---|---|---|---|"]
    for retriever in paper.rows:
        cells = " | ".join(f"{value:.1f}" for value in paper.numbers(retriever))
        lines.append(f"| silver | {paper.dataset}, paper (read off) | {label(retriever)} | {cells} |")
    for suffix, dataset in DATASETS.items():
        if (path := figures / f"03_hits{suffix}.csv").is_file():
            table = measured(read_table(path)).sort_values("metric", kind="stable")
            for (metric, method), rows in table.groupby(["metric", "method"], sort=False):
                cells = " | ".join(f"{100 * value:.1f}" for value in rows.sort_values("k").value)
                lines.append(f"| {AGAINST[metric]} | {dataset} | {label(method)} | {cells} |")
    return lines


def reaugkd_table(figures: Path) -> list[str]:
    """ReAugKD's rows on every task whose figure is there, in per cent."""
    cells: dict[str, dict[str, str]] = {}
    for suffix, dataset in DATASETS.items():
        if (path := figures / f"13_reaugkd{suffix}.csv").is_file():
            for row in measured(read_table(path)).itertuples():
                cell = f"{100 * row.value:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
                cells.setdefault(dataset + ", F1" * (row.metric == "f1"), {})[label(row.method)] = cell
    methods = list(dict.fromkeys(method for column in cells.values() for method in column))
    lines = [f"| method | {' | '.join(cells)} |", "|---" * (1 + len(cells)) + "|"]
    return [*lines, *(f"| {m} | {' | '.join(column.get(m, '') for column in cells.values())} |" for m in methods)]


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
        lines += ["", f"*{title}*", "", f"| {' | '.join(table)} |", "|---" * len(table.columns) + "|"]
        for cells in table.itertuples(index=False):
            lines.append(f"| {' | '.join(map(escape, cells))} |")
    return lines


def escape(cell: str) -> str:
    """A table's cell that Markdown shows as it is: no tag, no link, no emphasis and no other column."""
    for mark, shown in {"<": "&lt;", "](": r"]\(", "*": r"\*", "|": r"\|", "\n": "<br>"}.items():
        cell = cell.replace(mark, shown)
    return cell


def figures_table(figures: Path) -> list[str]:
    """Every figure beside the paper's table or figure that it stands for."""
    lines = ["| paper | here |", "|---|---|"]
    for path in sorted(figures.glob("*.png")):
        name = path.stem
        dataset = next((data for suffix, data in DATASETS.items() if suffix and name.endswith(suffix)), "")
        paper = f"{COVERS.get(name[:2], 'ours')}{dataset and f', on {dataset}'}"
        lines.append(f"| {paper} | ![{name}](figures/{name}.png) |")
    return lines


def gallery(figures: Path) -> str:
    """The README's section, markers included."""
    parts = [
        "**Tables 1 and 2**: accuracy in per cent; the paper's base student on three datasets, our students on the",
        "closed world with 95 % intervals over questions and seeds. Tasks differ: compare the order, not the level.",
        "", *main_table(figures), "",
        "**Figure 4c**: share of questions with a right passage among the first *k*, in per cent. Silver",
        "passages are the top 3 that the teacher's rationales retrieve, gold ones the annotators' (or the world's).",
        "", *hits_table(figures), "",
        "**ReAugKD**: accuracy in per cent with 95 % intervals over questions and seeds (teacher: over questions).",
        "Of the paper only the mean over six GLUE tasks is known, 0.42 points above the best earlier method.",
        "", *reaugkd_table(figures), "",
        "**Scorecard**: what the papers claim, with a verdict for every dataset, scale and student that was run. The",
        "whole 95 % interval decides: inside what the test asks for ✓ reproduced, outside ✗ not reproduced, else",
        "? undecided. Gains are in points, shares in per cent, the papers' numbers in theirs. Only tests that",
        "could have failed count. Chance alone: if every true number lay on the edge of what its test asks for.",
        "", *scorecard_table(figures), "",
        "**Figures**, each with its data as CSV and as PDF beside it in `figures/`:",
        "", *figures_table(figures),
    ]  # fmt: skip
    return "\n".join([BEGIN, "", *parts, "", END])


def refresh_readme(readme: Path, figures: Path) -> None:
    """Write the section anew, in place."""
    text = readme.read_text("utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    with atomic_write(readme) as temporary:
        temporary.write_text(before + gallery(figures) + after, "utf-8")
