"""Run tables: what a search found for every query, as a table on disk and as a dictionary."""

import csv
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kardlib.data.files import DataError

Run = dict[str, list[tuple[str, float]]]  # query id -> (passage id, score), best first


@dataclass(frozen=True)
class Candidates:
    """`D~_ij`, the passages that one rationale `r_ij` of the question `x_i` teaches the reranker to order.

    Both kinds map a passage's id to `rho(d | r_ij; D)`, the *rationale's* score, whoever found the passage.
    """

    question_id: str
    from_rationale: Mapping[str, float]  # topk(rho(d | r_ij; D), kappa_1)
    from_question: Mapping[str, float]  # topk(rho(d | x_i; D), kappa_2)


# Run tables


def write_run(path: str | Path, run: Run) -> None:
    """Write a run as TSV with the columns query, rank (from 1), passage, score.

    A query that found nothing keeps a row: rank 0, no passage. Ids are printable, as the readers make sure. The file is
    written whole or not at all.
    """
    partial = Path(f"{path}.{os.getpid()}.partial")
    with open(partial, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, "excel-tab", lineterminator="\n")
        table.writerow(["query", "rank", "passage", "score"])
        for query, ranked in run.items():
            table.writerows([query, rank, passage, score] for rank, (passage, score) in enumerate(ranked, 1))
            if not ranked:
                table.writerow([query, 0, "", ""])
    os.replace(partial, path)


def read_run(path: str | Path) -> Run:
    """Read what `write_run` wrote. Raises DataError for a missing file or a malformed row."""
    run: Run = {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            table = csv.reader(file, "excel-tab", strict=True)
            if next(table, None) != ["query", "rank", "passage", "score"]:
                raise DataError(f"{path} is no run table: its first line must name query, rank, passage and score")
            for query, rank, passage, score in table:
                ranked = run.setdefault(query, [])
                if rank == "0" and not ranked:
                    continue
                ranked.append((passage, float(score)))
                if int(rank) != len(ranked) or not math.isfinite(ranked[-1][1]):
                    raise ValueError
    except FileNotFoundError:
        raise DataError(f"there is no run table {path}; search first or correct the path") from None
    except OSError as error:
        raise DataError(f"the run table {path} cannot be read ({error.strerror}); correct the path") from None
    except DataError:
        raise
    except (ValueError, csv.Error):  # ValueError: also four columns missed, or text that is not UTF-8
        raise DataError(
            f"{path}, line {table.line_num}: not a row of a run table; delete the file and search again"
        ) from None
    return run
