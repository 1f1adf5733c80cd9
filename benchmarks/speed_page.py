"""Write the tables and the figure of docs/speed.md anew from benchmarks/results/.

python benchmarks/speed_page.py
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kardlib import REPOSITORY
from kardlib.artifacts.disk import atomic_write
from kardlib.kard.methods import METHODS
from kardlib.report.drawings.style import DASHED, log_ticks, set_log_x
from kardlib.report.figures import LOOK
from kardlib.report.gallery import as_markdown, write_between

BEGIN, END = "<!-- results: made by benchmarks/speed_page.py -->", "<!-- end of results -->"
WORK = {"reranking": "reranking", "generation": "five samples", "training": "training"}
UNIT = {"training": "an example"}  # of which the times are; else a question
WAYS = {"all_logits": "the Trainer's, float32", "target_logits": "logits of targets alone, no mask, float32",
        "bf16": "these in bfloat16"}  # fmt: skip
DATA = {"world": "closed world", "obqa": "OpenbookQA", "strategyqa": "StrategyQA"}
MEASURES = {"seconds": "CPU seconds", "mib": "peak MiB above the start"}  # of the figure's two columns
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # of lines, told apart by the colour-blind
GAP = 0.11  # of a panel's height, between the labels of two lines
LEAST = 0.001  # of what is drawn: a logarithmic axis has no nothing


def read_results(folder: Path, benchmark: str) -> list[dict[str, Any]]:
    """What stands in the files `benchmark.json` and `benchmark_*.json`."""
    files = [*folder.glob(f"{benchmark}.json"), *sorted(folder.glob(f"{benchmark}_*.json"))]
    return [json.loads(file.read_text()) for file in files]


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.{0 if seconds >= 0.1 else 1 if seconds >= 0.01 else 2}f}"


def official_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, work in WORK.items():
        if part := result["parts"].get(name):
            verdict = "reached" if part["ratio"] >= part["aim"] else "missed"
            times = [milliseconds(part[f"{way}_seconds"]) for way in ("official", "library")]
            share, slowest = f"{100 * part['limit_share']:.1f} %", ", ".join(part["slowest"])
            yield [f"{work}, {UNIT.get(name, 'a question')}", DATA[result["dataset"]], *times, f"{part['ratio']:g}",
                   f"{part['ratio_same_kernels']:g}", f"{part['aim']:g}, {verdict}", share, slowest]  # fmt: skip


def way_rows(dataset: str, done: Mapping[str, Any]) -> Iterator[list[str]]:
    """BM25's ways: what a question takes, how much of it is Lucene's own search, and what the rest is."""
    at = done["seconds"]
    ours = {"hits as JSON in Java": at["json"] - at["search"],
            "read by Python, handed between processes": at["batches"] - at["analysis"] - at["json"]}  # fmt: skip
    theirs = {"hits with stored texts in Java": at["pyserini_java"] - done["lucene"],
              "read by Python": at["pyserini"] - at["pyserini_java"]}  # fmt: skip
    alone = ours | {"a request for each": at["loop"] - at["batches"]}
    ways = {"pyserini": ("pyserini's search, in a loop", theirs), "loop": ("the library's, in a loop", alone),
            "batches": ("the library's, in batches", ours)}  # fmt: skip
    for way, (name, steps) in ways.items():
        took, ratio = at[way], at[way] / at["batches"]
        verdict = f"{done['aim']:g}, {'reached' if ratio >= done['aim'] else 'missed'}" if way != "batches" else ""
        rest = ", ".join(f"{step} {100 * max(0.0, seconds) / took:.0f} %" for step, seconds in steps.items())
        yield [DATA[dataset], name, milliseconds(took), f"{ratio:.2f}", verdict,
               f"{100 * done['lucene'] / took:.0f} %", f"{took / done['lucene']:.1f}", rest]  # fmt: skip


def agreement_rows(dataset: str, compared: Mapping[str, Any]) -> Iterator[list[str]]:
    for tokens, name in {"own_tokens": "its own", "lucene_tokens": "Lucene's"}.items():
        shares = [f"{100 * compared[tokens][f'other_first_{k}']:.1f} %" for k in (1, 10, 100)]
        yield [DATA[dataset], f"{compared['questions']:,}", name, *shares]


def size_rows(sizes: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for size in sizes:
        for name, done in size.items():
            if name != "passages":
                memory = [f"{done[f'{work}_mib']:,}" for work in ("index", "search")]
                yield [f"{size['passages']:,}", {"library": "Lucene"}.get(name, name), f"{done['index_seconds']:.1f}",
                       memory[0], milliseconds(done["search_seconds"]), memory[1]]  # fmt: skip


def show_bm25(result: Mapping[str, Any], costs: Sequence[Mapping[str, Any]]) -> list[str]:
    """BM25's tables, and how much of the suite is searching."""
    ways, origin = result["ways"], result["provenance"]
    columns = ("questions", "way", "CPU ms", "over batches", "aim", "Lucene's own search", "over that alone",
               "the rest")  # fmt: skip
    lines = ["", "### BM25", "", *as_markdown(columns, [r for name in ways for r in way_rows(name, ways[name])]), ""]
    first = [f"{DATA[name]} {done['first_seconds'] / done['seconds']['batches']:.1f}" for name, done in ways.items()]
    lines += [
        f"- The first pass in batches that was timed, while Java still compiled, over a later one: {', '.join(first)}."
    ]
    counted = ", ".join(f"{DATA[name]} {done['questions']:,}" for name, done in ways.items())
    load = f"load {result['load'][0]:g} to {result['load'][1]:g}"
    lines += [f"- Questions timed: {counted}; {origin['device']}, {load}, {describe_origin(origin)}."]
    if compared := {name: done["bm25s"] for name, done in ways.items() if done["bm25s"]}:
        columns = ("questions", "number", f"bm25s ({result['bm25s']}) given tokens that are", "another first passage",
                   "others among the first 10", "others among the first 100")  # fmt: skip
        lines += ["", *as_markdown(columns, [r for name in compared for r in agreement_rows(name, compared[name])])]
    columns = ("generated passages", "library", "index, CPU s", "peak MiB", "a question, CPU ms", "MiB after a search")
    lines += ["", *as_markdown(columns, size_rows(result["sizes"]))]
    for cost in costs:
        spent = [(kind, seconds) for kinds in cost["notebooks"].values() for kind, (_, seconds) in kinds.items()]
        some, whole = (sum(s for k, s in spent if k in kinds or not kinds) for kinds in (("run", "index"), ()))
        lines += ["", f"- Of the suite's {whole:,} core-seconds its indexes and runs take {some:,}."]
    return lines


def peer_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, peer in result["peers"].items():
        if "skipped" in peer:
            yield [name, DATA[result["dataset"]], peer["part"], f"left out: {peer['skipped']}", *[""] * 5]
            continue
        agreement = ", ".join(f"{what.replace('_', ' ')} {value:g}" for what, value in peer["agreement"].items())
        yield [
            f"{name} ({peer['version']})", DATA[result["dataset"]], peer["part"], milliseconds(peer["peer_seconds"]),
            milliseconds(peer["library_seconds"]), f"{peer['ratio']:g}", str(peer.get("ratio_same_kernels", "")),
            f"{peer['library_mib']:,} / {peer['peer_mib']:,}", agreement,
        ]  # fmt: skip


def training_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for way, name in WAYS.items():
        done, ratio = result[way], result[way]["tokens_a_second"] / result["all_logits"]["tokens_a_second"]
        share = f"{100 * done['share_of_limit']:.0f} %"
        yield [name, f"{done['tokens_a_second']:.0f}", f"{ratio:.2f}", f"{done['limit_gigaflops']:.0f}", share,
               f"{done['peak_mib']:,}", f"{done['planned_mib']:,}", f"{done['loss']:.4f}"]  # fmt: skip


def few_shot_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for row in result["rows"]:
        form = {"chat": "turns of a chat", "plain": "lines"}[row["form"]]
        shares = [f"{100 * row[name]:.0f} %" for name in ("right", "unread")]
        times = [f"{row[way] / result['timed']:.2f}" for way in ("read_each_time", "read_once")]
        yield [METHODS[row["method"]].label, form, *shares, *times, f"{row['ratio']:.2f}"]


def writing_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for number in ("float32", "bf16"):
        done, questions = result[number], result["questions"]
        times = [f"{done['seconds'][way] / questions:.2f}" for way in ("kept", "leaving")]
        lengths = f"{done['tokens'] / questions:.0f}, {done['longest']}"
        yield [number, *times, f"{done['ratio']:.2f}", lengths, f"{100 * done['same_texts']:.0f} %"]


def reranker_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for way, name in {"fp32": "the library's, float32", "bf16": "bfloat16, by autocast"}.items():
        done, ratio = result[way], result[way]["tokens_a_second"] / result["fp32"]["tokens_a_second"]
        shares = [f"{100 * done[share]:.0f} %" for share in ("share_of_limit", "share_with_attention")]
        yield [name, f"{done['tokens_a_second']:.0f}", f"{ratio:.2f}", f"{done['limit_gigaflops']:.0f}", *shares,
               f"{done['peak_mib']:,}", f"{result['planned_mib']:,}", f"{done['loss']:.4f}",
               ", ".join(done["slowest"])]  # fmt: skip


def cost_rows(notebooks: Mapping[str, Mapping[str, Sequence[int]]]) -> Iterator[list[str]]:
    """The suite's artifacts by notebook, and in the last row all of them: how many of a kind, and their seconds."""
    total = defaultdict[str, list[int]](lambda: [0, 0])
    for kinds in notebooks.values():
        for kind, (count, seconds) in kinds.items():
            total[kind] = [total[kind][0] + count, total[kind][1] + seconds]
    for name, kinds in {**notebooks, "all": total}.items():
        longest = sorted(kinds.items(), key=lambda item: -item[1][1])[:5]
        said = [f"{count} {kind.replace('_', ' ')} {seconds:,}" for kind, (count, seconds) in longest]
        yield [name, f"{sum(seconds for _, seconds in kinds.values()):,}", ", ".join(said)]


def suite_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    """Both commits' runs of the suite."""
    first = result["before"]["cpu_seconds"]
    for run in (result["before"], result["after"]):
        cpu, minutes, peak = run["cpu_seconds"], run["seconds"] / 60, run["peak_mib"]
        yield [f"commit {run['commit'][:7]}", f"{cpu:,}", f"{cpu / first:.2f}", f"{minutes:.0f}", f"{peak:,}"]


def describe_origin(origin: Mapping[str, Any]) -> str:
    """When it was measured, and with which code."""
    return f"{origin['date'][:10]}, commit {origin['commit'][:7]}{' with changes' if origin['dirty'] else ''}"


def count_work(part: Mapping[str, Any]) -> str:
    return f"{part['steps']} steps of {part['batch']}" if "steps" in part else f"{part['questions']:,} questions"


def describe(result: Mapping[str, Any]) -> str:
    origin = result["provenance"]
    limits = result.get("limit_gigaflops")
    rates = f"; products {limits['torch']:g} and {limits['library']:g} GFLOP a second and core" if limits else ""
    done = [f"{WORK[name]}: {count_work(part)}" for name, part in result.get("parts", {}).items() if name in WORK]
    rates += f"; {', '.join(done)}" if done else ""
    return (
        f"{DATA[result['dataset']]}: {origin['device']}, {result['cores']} cores, load {result['load'][0]:g} to "
        f"{result['load'][1]:g}, {describe_origin(origin)}{rates}."
    )


def show(folder: Path) -> list[str]:
    """The page's lines between its markers, from the results in a folder."""
    lines: list[str] = []
    results = {name: read_results(folder, name) for name in ("official", "peers")}
    if results["official"]:
        columns = ("work", "questions", "released code's way, CPU ms", "library, CPU ms", "ratio", "same kernels",
                   "aim", "share of the limit", "what the library's time goes into")  # fmt: skip
        rows = [row for result in results["official"] for row in official_rows(result)]
        lines += ["", "### The released code's way", "", *as_markdown(columns, rows)]
        lines += ["", *(f"- {describe(result)}" for result in results["official"])]
    for result in read_results(folder, "bm25"):
        lines += show_bm25(result, read_results(folder, "suite_costs"))
    if results["peers"]:
        columns = ("peer", "questions", "work", "peer, CPU ms", "library, CPU ms", "ratio", "same kernels",
                   "peak MiB, library / peer", "agreement")  # fmt: skip
        rows = [row for result in results["peers"] for row in peer_rows(result)]
        lines += ["", "### Other libraries", "", *as_markdown(columns, rows)]
        lines += ["", *(f"- {describe(result)}" for result in results["peers"])]
    for result in read_results(folder, "causal_training"):
        columns = ("way", "tokens a second of CPU time", "ratio", "products of large matrices, GFLOP a second",
                   "share of that limit", "peak MiB", "planned MiB", "loss")  # fmt: skip
        lines += ["", "### Training a pretrained language model", "", *as_markdown(columns, training_rows(result))]
        did = f"{result['model']}, {result['steps']} steps of {result['batch']}"
        lines += ["", f"- {did}; {describe_origin(result['provenance'])}."]
    for result in read_results(folder, "causal_writing"):
        columns = ("number type", "kept to the longest text, CPU s a question", "texts leave, CPU s a question",
                   "ratio", "tokens of a text, of the longest", "same texts")  # fmt: skip
        lines += ["", "### Writing with a pretrained language model", "", *as_markdown(columns, writing_rows(result))]
        did = f"{result['model']}, {DATA[result['dataset']]}, one batch of {result['questions']} questions"
        lines += ["", f"- {did}; {describe_origin(result['provenance'])}."]
    for result in read_results(folder, "few_shot"):
        columns = ("prompt", "form", "right", "unread", "examples read each time, CPU s a question",
                   "read once, CPU s a question", "ratio")  # fmt: skip
        lines += ["", "### Few-shot prompts", "", *as_markdown(columns, few_shot_rows(result))]
        did = f"{result['model']}, {DATA[result['dataset']]}, {result['questions']} development questions"
        timed = f"of which {result['timed']} are timed in float32"
        lines += ["", f"- {did}, {timed}; {describe_origin(result['provenance'])}."]
    for result in read_results(folder, "reranker_training"):
        columns = ("way", "tokens a second of CPU time", "ratio", "products of large matrices, GFLOP a second",
                   "share of that limit", "with attention's products", "peak MiB", "planned MiB", "loss",
                   "what a step's time goes into")  # fmt: skip
        lines += ["", "### Training a reranker", "", *as_markdown(columns, reranker_rows(result))]
        did = f"{result['model']}, {DATA[result['dataset']]}, {result['steps']} steps of {result['batch']} questions"
        done = f"the fastest of {result['repeats']}; {describe_origin(result['provenance'])}"
        lines += ["", f"- {did}, {result['fp32']['tokens']:,} tokens, {done}."]
    for result in read_results(folder, "suite_costs"):
        columns = ("notebook", "core-seconds", "of which")
        lines += ["", "### The suite", "", *as_markdown(columns, cost_rows(result["notebooks"]))]
        lines += ["", f"- {describe_origin(result['provenance'])}."]
    for result in read_results(folder, "suite_ratio"):
        columns = ("the whole suite, from an empty store", "core-seconds", "ratio", "minutes", "peak MiB")
        lines += ["", *as_markdown(columns, suite_rows(result)), ""]
        lines += [f"- {result['device']}, {result['cores']} cores, one after the other."]
    for result in read_results(folder, "growth"):
        columns = ("what grows", "work", "sizes", "CPU s at the largest", "exponent", "peak MiB at the largest",
                   "exponent")  # fmt: skip
        what = "CPU time and peak memory over size, a row of panels each for questions, passages, candidates, students"
        lines += ["", "### Growth", "", f"![{what}](growth.svg)", ""]
        lines += [*as_markdown(columns, map(growth_row, result["curves"])), "", f"- {describe_growth(result)}"]
    return [*lines, ""]


# Growth


def growth_row(curve: Mapping[str, Any]) -> list[str]:
    sizes = f"{curve['sizes'][0]:,} to {curve['sizes'][-1]:,}"
    row = [curve["axis"], curve["work"], sizes, f"{curve['seconds'][-1]:.2g}", say_exponent(curve, "seconds")]
    return [*row, f"{curve['mib'][-1]:,.0f}", say_exponent(curve, "mib")]


def say_exponent(curve: Mapping[str, Any], measure: str) -> str:
    exponent = curve[f"{measure}_exponent"]
    return "flat" if exponent is None else f"{exponent + 0:.2f}"


def describe_growth(result: Mapping[str, Any]) -> str:
    origin, share = result["provenance"], result["share"]
    shrunk = "" if share == 1 else f"; all sizes times {share:g}"
    load = f"load {result['load'][0]:g} to {result['load'][1]:g}"
    anew = [f"; {c['work']}: {describe_origin(c['provenance'])}" for c in result["curves"] if "provenance" in c]
    return f"{origin['device']}, {result['cores']} cores, {load}, {describe_origin(origin)}{shrunk}{''.join(anew)}."


def draw_growth(curves: Sequence[Mapping[str, Any]]) -> Figure:
    """A row of panels for what grows, its columns CPU time and memory; sizes are multiples of each line's smallest."""
    axes = list(dict.fromkeys(curve["axis"] for curve in curves))
    fig = Figure(figsize=(9.4, 0.4 + 2.2 * len(axes)), layout="none")  # at 96 pixels an inch as wide as a page of docs
    panels = fig.subplots(len(axes), len(MEASURES), squeeze=False)
    fig.subplots_adjust(left=0.07, right=0.81, wspace=0.7, hspace=0.45, top=1 - 0.35 / fig.get_figheight(),
                        bottom=0.5 / fig.get_figheight())  # fmt: skip
    for row, axis in zip(panels, axes, strict=True):
        mine = [curve for curve in curves if curve["axis"] == axis]
        for ax, (measure, title) in zip(row, MEASURES.items(), strict=True):
            growth_panel(ax, mine, measure)
            ax.set_title(f"{axis.capitalize()}: {title}", pad=14)
            ax.set_xlabel("Times the smallest size" if axis == axes[-1] else "")
    return fig


def growth_panel(ax: Axes, curves: Sequence[Mapping[str, Any]], measure: str) -> None:
    """Lines with their work and exponent at their right end, and a dashed one of slope 1 to compare with."""
    shown = [(COLOURS[i], c) for i, c in enumerate(curves) if measure == "seconds" or c["mib_exponent"] is not None]
    flat = [name_work(curve) for curve in curves if all(curve is not c for _, c in shown)]
    said = f"flat: {', '.join(flat)}" if flat else ""
    ax.annotate(said, (0, 1.02), xycoords="axes fraction", fontsize=7, color="0.35")
    for colour, curve in shown:
        times = [size / curve["sizes"][0] for size in curve["sizes"]]
        ax.plot(times, np.maximum(curve[measure], LEAST), color=colour, marker="o", markersize=3)
    times = [size / curves[0]["sizes"][0] for size in curves[0]["sizes"]]  # those of an axis are alike
    ends = np.maximum([curve[measure][-1] for _, curve in shown] or [1.0], LEAST)
    middle = np.exp(np.log(ends).mean())
    ax.plot([times[0], times[-1]], [middle * times[0] / times[-1], middle], **DASHED)
    ax.set(yscale="log")
    set_log_x(ax, times)
    low, high = np.log(ax.get_ylim())
    places = (np.log(ends) - low) / (high - low)
    for _ in range(50):  # labels push each other apart
        order = np.argsort(places)
        for i, j in pairwise(order):
            lack = max(0.0, GAP - places[j] + places[i]) / 2
            places[[i, j]] += -lack, lack
    places -= max(0.0, places.max() - 1)
    for place, (colour, curve) in zip(places, shown, strict=False):
        text = f"{name_work(curve)} {say_exponent(curve, measure)}"
        ax.annotate(text, (1.04, place), xycoords="axes fraction", va="center", color=colour, annotation_clip=False)
    log_ticks(ax.yaxis, 5)
    ax.grid(True)


def name_work(curve: Mapping[str, Any]) -> str:
    return str(curve["work"].split(",")[0])


@mpl.rc_context(LOOK | {"svg.hashsalt": "growth", "svg.fonttype": "path", "font.size": 8})
def save_growth(curves: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the curves as SVG; the same curves are the same bytes."""
    fig = draw_growth(curves)
    with atomic_write(path) as temporary:
        fig.savefig(temporary, format="svg", metadata={"Date": None, "Creator": "kardlib"})


def refresh(page: Path, folder: Path) -> None:
    """Write the page and its figure anew, in place."""
    for result in read_results(folder, "growth"):
        save_growth(result["curves"], page.with_name("growth.svg"))
    write_between(page, BEGIN, END, show(folder))


if __name__ == "__main__":
    refresh(REPOSITORY / "docs" / "speed.md", REPOSITORY / "benchmarks" / "results")
