"""Write the tables of docs/speed.md anew from benchmarks/results/.

python benchmarks/speed_page.py
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kardlib.artifacts.store import REPOSITORY
from kardlib.report.gallery import as_markdown, write_between

BEGIN, END = "<!-- results: made by benchmarks/speed_page.py -->", "<!-- end of results -->"
WORK = {"reranking": "reranking", "generation": "five samples", "training": "training", "bm25": "BM25"}
UNIT = {"training": "an example"}  # of which the times are; else a question
DATA = {"world": "closed world", "obqa": "OpenbookQA", "strategyqa": "StrategyQA"}


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
            row = [
                f"{work}, {UNIT.get(name, 'a question')}",
                DATA[result["dataset"]],
                *times,
                f"{part['ratio']:g}",
            ]
            if name == "bm25":
                elapsed = f"{part['ratio_elapsed']:g} times in elapsed time on {part['threads']} threads"
                yield [*row, "", f"{part['aim']:g}, {verdict}", "no products", elapsed]
            else:
                share, slowest = f"{100 * part['limit_share']:.1f} %", ", ".join(part["slowest"])
                yield [*row, f"{part['ratio_same_kernels']:g}", f"{part['aim']:g}, {verdict}", share, slowest]


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


def count_work(part: Mapping[str, Any]) -> str:
    return f"{part['steps']} steps of {part['batch']}" if "steps" in part else f"{part['questions']:,} questions"


def describe(result: Mapping[str, Any]) -> str:
    origin = result["provenance"]
    limits = result.get("limit_gigaflops")
    rates = f"; products {limits['torch']:g} and {limits['library']:g} GFLOP a second and core" if limits else ""
    commit = f"{origin['commit'][:7]}{' with changes' if origin['dirty'] else ''}"
    done = [f"{WORK[name]}: {count_work(part)}" for name, part in result.get("parts", {}).items()]
    rates += f"; {', '.join(done)}" if done else ""
    return (
        f"{DATA[result['dataset']]}: {origin['device']}, {result['cores']} cores, load {result['load'][0]:g} to "
        f"{result['load'][1]:g}, {origin['date'][:10]}, commit {commit}{rates}."
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
    if results["peers"]:
        columns = ("peer", "questions", "work", "peer, CPU ms", "library, CPU ms", "ratio", "same kernels",
                   "peak MiB, library / peer", "agreement")  # fmt: skip
        rows = [row for result in results["peers"] for row in peer_rows(result)]
        lines += ["", "### Other libraries", "", *as_markdown(columns, rows)]
        lines += ["", *(f"- {describe(result)}" for result in results["peers"])]
    return [*lines, ""]


def refresh(page: Path, folder: Path) -> None:
    """Write the page anew, in place."""
    write_between(page, BEGIN, END, show(folder))


if __name__ == "__main__":
    refresh(REPOSITORY / "docs" / "speed.md", REPOSITORY / "benchmarks" / "results")
