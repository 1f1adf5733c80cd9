"""Tables of figures' data for the tests of figures and of drawings."""

from kardlib.kard.methods import main_rows
from kardlib.report.rows import long_form

WHERE = {"figure": "03_hits", "dataset": "world", "scale": "smoke"}
RETRIEVERS = ("bm25", "untrained", "reranker")
MAIN_ROWS = [*main_rows(oracles=True, rationales=True)]


def accuracy_row(**changes):
    return WHERE | {"method": "kard_bm25", "student": "t5-nano-base", "metric": "accuracy", "value": 0.5} | changes


def hits_table():
    return long_form(
        WHERE | {"method": method, "k": k, "metric": metric, "value": v, "low": v - 0.05, "high": v + 0.05, "n": 600}
        for metric in ("hits_gold", "hits_silver")
        for i, method in enumerate(RETRIEVERS)
        for k in (1, 3, 10)
        for v in [0.2 + 0.1 * i + 0.03 * k]
    )


def main_table():
    return long_form(
        [accuracy_row(method="chance", student=None, value=0.25)]
        + [
            accuracy_row(method=m, student=s, seed=seed, value=0.3 + i / 25, low=0.28 + i / 25, high=0.33 + i / 25)
            for s in ("small", "base", "large")
            for i, m in enumerate(MAIN_ROWS)
            for seed in (None, 0, 1)
        ]
    )
