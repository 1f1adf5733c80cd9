"""The README's results: the papers' numbers beside those that the figures' data hold, the verdicts, and all figures.

`kard reproduce --publish` writes them between the two markers, so that no number there is typed.
"""

from pathlib import Path

import pandas as pd

from kardlib.artifacts.store import atomic_write
from kardlib.report.claims import judge, read_claims, read_rows, summarize, tally
from kardlib.report.figures import METHOD_LABEL
from kardlib.settings import preset

BEGIN, END = "<!-- results: made by kard reproduce --publish -->", "<!-- end of results -->"

# KARD, accuracy in per cent of the base student: Table 1 (MedQA, Flan-T5), Table 2 (StrategyQA and OpenbookQA, T5).
TABLES_1_AND_2 = {
    "few_shot": (23.49, 48.47, 23.00),
    "few_shot_cot": (25.22, 48.47, 27.60),
    "ka_few_shot_cot": (31.34, 48.47, 27.60),
    "fine_tuning": (30.71, 52.26, 54.00),
    "ka_fine_tuning": (33.39, 52.11, 53.80),
    "reasoning_distillation": (31.03, 55.36, 58.87),
    "kard_bm25": (33.14, 55.90, 55.93),
    "kard_reranker": (38.15, 56.57, 59.33),
    "kard_silver": (40.30, 57.50, 63.40),
    "teacher_cot": (61.59, 66.38, 58.60),
}
# KARD, Figure 4c, MedQA against silver passages, read off the figure: Hits@1, 3, 5, 10.
FIGURE_4C = {"bm25": (14.3, 25.5, 30.7, 40.0), "reranker": (23.2, 39.6, 46.3, 53.1)}
DATASETS = {"": "closed world", "_obqa": "OpenbookQA", "_strategyqa": "StrategyQA"}
DATASETS |= {"_mrpc": "MRPC", "_rte": "RTE", "_sst2": "SST-2"}
COVERS = {  # notebook -> what the figures that it draws stand beside in the papers
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


def read_summary(figures: Path, name: str) -> pd.DataFrame:
    """The rows over all seeds of a figure's data."""
    table = pd.read_csv(figures / f"{name}.csv")
    return table[table.seed.isna()]


def main_table(figures: Path) -> list[str]:
    """Tables 1 and 2 of the paper beside ours."""
    table = read_summary(figures, "04_main")
    table = table[table.metric == "accuracy"]
    students = preset().students
    ours = {
        (r.method, r.student): f"{100 * r.value:.1f} [{100 * r.low:.1f}, {100 * r.high:.1f}]"
        for r in table.itertuples()
    }
    lines = [
        f"| method | MedQA | StrategyQA | OpenbookQA | {' | '.join(students)} |",
        "|---|" + "---|" * (3 + len(students)),
    ]
    for method, paper in TABLES_1_AND_2.items():
        cells = [f"{value:.2f}" for value in paper] + [ours[method, student] for student in students]
        lines.append(f"| {METHOD_LABEL[method]} | {' | '.join(cells)} |")
    chance = table[table.method == "chance"].value.item()
    return [*lines, "", f"Guessing is right on {100 * chance:.1f} % of the closed world's questions."]


def hits_table(figures: Path) -> list[str]:
    """Figure 4c of the paper beside ours, for every dataset whose figure is there."""
    lines = ["| against | dataset | retriever | Hits@1 | Hits@3 | Hits@5 | Hits@10 |", "|---|---|---|---|---|---|---|"]
    for retriever, values in FIGURE_4C.items():
        cells = " | ".join(f"{value:.1f}" for value in values)
        lines.append(f"| silver | MedQA, paper (read off) | {METHOD_LABEL[retriever]} | {cells} |")
    for suffix, dataset in DATASETS.items():
        if (figures / f"03_hits{suffix}.csv").is_file():
            table = read_summary(figures, f"03_hits{suffix}")
            table = table[table.metric.str.startswith("hits_")]
            for (metric, method), rows in table.groupby(["metric", "method"], sort=False):
                cells = " | ".join(f"{100 * value:.1f}" for value in rows.sort_values("k").value)
                lines.append(f"| {metric.removeprefix('hits_')} | {dataset} | {METHOD_LABEL[method]} | {cells} |")
    return lines


def reaugkd_table(figures: Path) -> list[str]:
    """ReAugKD's rows on every task whose figure is there, in per cent."""
    names = {suffix: f"13_reaugkd{suffix}" for suffix in DATASETS if (figures / f"13_reaugkd{suffix}.csv").is_file()}
    cells: dict[str, dict[str, str]] = {}
    for suffix, name in names.items():
        for row in read_summary(figures, name).itertuples():
            if row.metric in ("accuracy", "f1"):
                task = DATASETS[suffix] + ", F1" * (row.metric == "f1")
                cell = f"{100 * row.value:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
                cells.setdefault(task, {})[METHOD_LABEL[row.method]] = cell
    methods = list(dict.fromkeys(method for column in cells.values() for method in column))
    lines = [f"| method | {' | '.join(cells)} |", "|---" * (1 + len(cells)) + "|"]
    return [*lines, *(f"| {m} | {' | '.join(column.get(m, '') for column in cells.values())} |" for m in methods)]


def scorecard_table(figures: Path) -> list[str]:
    """Every claim with its verdict, and how many there are of each kind."""
    scorecard = judge(read_claims(), read_rows([figures]))
    table = summarize(scorecard)
    lines = [f"| {' | '.join(table)} |", "|---" * len(table.columns) + "|"]
    for cells in table.itertuples(index=False):
        escaped = (cell.replace("*", r"\*").replace("|", r"\|").replace("\n", "<br>") for cell in cells)
        lines.append(f"| {' | '.join(escaped)} |")
    return [*lines, "", f"Together: {tally(scorecard)}."]


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
        "? undecided. Gains are in points, shares in per cent, the papers' numbers in theirs.",
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
