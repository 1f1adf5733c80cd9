"""Runs: the passages that a search found for every query, in memory and as tables on disk."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kardlib.artifacts.disk import atomic_write
from kardlib.errors import DataError

Run = dict[str, list[tuple[str, float]]]  # query id -> (passage id, score), best first


@dataclass(frozen=True)
class Candidates:
    """`D~_ij`: passages that the reranker learns to order from one rationale `r_ij` of the question `x_i`.

    Both maps go from a passage's id to `rho(d | r_ij; D)`, its score for the *rationale*, whichever query found it
    (KARD, Section 4).
    """

    question_id: str
    from_rationale: Mapping[str, float]  # topk(rho(d | r_ij; D), kappa_1)
    from_question: Mapping[str, float]  # topk(rho(d | x_i; D), kappa_2)
    rationale_id: str = ""


def write_run(path: str | Path, run: Run) -> None:
    """Write a run as TSV with the columns query, rank (from 1), passage, score; the file is whole or not there.

    A query that found nothing keeps a row: rank 0, no passage. Ids must be printable, which their readers ensure.
    Raises DataError for a score that is no finite number: what read it would call the file damaged.
    """
    scored = ((score, passage, query) for query, ranked in run.items() for passage, score in ranked)
    if wrong := next((one for one in scored if not math.isfinite(one[0])), None):
        score, passage, query = wrong
        raise DataError(
            f"the model that ranks gave {passage!r} the score {score} for {query!r}, so its order means nothing: take "
            "another model, or train it with a lower learning rate"
        )
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, "excel-tab", lineterminator="\n")
        table.writerow(["query", "rank", "passage", "score"])
        for query, ranked in run.items():
            table.writerows([query, rank, passage, score] for rank, (passage, score) in enumerate(ranked, 1))
            if not ranked:
                table.writerow([query, 0, "", ""])


def read_run(path: str | Path) -> Run:
    """The run that `write_run` wrote. Raises DataError for a missing file or a malformed row."""
    run: Run = {}
    ids: dict[str, str] = {}  # a passage that many queries found is one text in memory
    try:
        with open(path, encoding="utf-8", newline="") as file:
            table = csv.reader(file, "excel-tab", strict=True)
            if next(table, None) != ["query", "rank", "passage", "score"]:
                raise DataError(f"{path} is no run table: its first line must name query, rank, passage and score")
            for query, rank, passage, score in table:
                ranked = run.setdefault(query, [])
                if rank == "0" and not ranked:
                    continue
                ranked.append((ids.setdefault(passage, passage), float(score)))
                if int(rank) != len(ranked) or not math.isfinite(ranked[-1][1]):
                    raise ValueError
    except FileNotFoundError:
        raise DataError(f"there is no run table {path}; search first or correct the path") from None
    except OSError as error:
        raise DataError(f"the run table {path} cannot be read ({error.strerror}); correct the path") from None
    except DataError:
        raise
    except (ValueError, csv.Error):  # ValueError: also for more or fewer columns, or text that is not UTF-8
        raise DataError(
            f"{path}, line {table.line_num}: not a row of a run table; delete the file and search again"
        ) from None
    return run
