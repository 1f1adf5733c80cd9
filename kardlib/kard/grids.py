"""The grids of the notebooks: which methods with which students under which settings; read by them and by `kard plan`.

A grid is a list of rows, each for all of the settings' seeds; its comparisons are between its rows.
"""

from collections.abc import Collection
from itertools import product

from kardlib.kard.experiment import Knobs
from kardlib.kard.frontier import at_size
from kardlib.kard.pipeline import Row
from kardlib.settings import RunSettings, WorldSettings

FT, KA_FT, RD = "fine_tuning", "ka_fine_tuning", "reasoning_distillation"
BM25, RERANKER = "kard_bm25", "kard_reranker"

# What an ablation varies: its value, and the settings that differ
SHARES = (0.01, 0.05, 0.25)  # of the training questions (KARD, Figure 4a, and 5 %), besides those that all others take
NUMBERS: dict[int, Knobs] = {  # l, rationales (Table 3, and one) of a quarter of the questions: ten of all take long
    l: (("student.share", 0.25), ("teacher.rationales", l)) for l in (1, 3, 5, 10)
}
CANDIDATES: dict[int, Knobs] = {kappa: (("retrieval.candidates", kappa),) for kappa in (10, 20, 50, 100)}  # Table 4, 10
PASSAGES: dict[int, Knobs] = {k: (("retrieval.k", k),) for k in (1, 2, 3, 5)}  # read at test (Table 5, and 5)
CORPORA: dict[str, Knobs] = {"none": (), "own": (("dapt.corpus", "own"),), "neighbour": (("dapt.corpus", "neighbour"),)}
IN_TABLE_7 = (KA_FT, "rag", "rag_warm", RD, RERANKER, "kard_dense")
IN_STRATA = ("bag_of_words", FT, RD, "undistilled_reranker", "ka_fine_tuning_reranker", RERANKER)
IN_FRONTIER = (FT, RD, "undistilled_reranker", RERANKER)
EPOCHS: dict[int, Knobs] = {n: (("student.epochs", n),) for n in (5, 20, 80)}  # how often the same is shown
ON_OWN_DATA = (FT, KA_FT, RD, BM25, RERANKER)
BESIDE_YOURS = ("undistilled_reranker", RD, BM25, RERANKER, "kard_silver")

# What the released code does instead of the paper: notebook 16
_LOSS, _LINEAR, _DROPOUT, _COMMON, _ANSWER = (
    ("reranker.loss", "cross_entropy"), ("reranker.passage_gradient", "linear"), ("reranker.dropout", 0.1),
    ("reranker.rare_terms", False), ("retrieval.answer_in_query", True),
)  # fmt: skip
_TEMPERATURES = ("reranker.temperatures", "released")
_DOT = (("reranker.similarity", "dot"), ("reranker.tau_2", 100.0))  # a temperature for dot products
_ALL = (_LINEAR, *_DOT, _DROPOUT, _COMMON, _ANSWER, ("reranker.tau_1", 1.0))
RERANKER_DIFFERENCES: dict[str, Knobs] = {
    "cross-entropy": (_LOSS,),
    "released temperatures": (_TEMPERATURES,),
    "passages train the linear layer alone": (_LINEAR,),
    "dot product, random layer": _DOT,
    "dropout": (_DROPOUT,),
    "terms of one passage dropped": (_COMMON,),
    "answer in the rationale's query": (_ANSWER,),
    "all of these, cross-entropy": (_LOSS, *_ALL),
    "all of these, KL": (_TEMPERATURES, *_ALL),
}
ASKING_DIFFERENCES: dict[str, Knobs] = {
    "last letter as the answer": (("answer", "last_letter"),),
    "another prompt at test": (("test_prompt", "passages_first"),),
}


def middle(settings: RunSettings) -> str:
    """The middle one of the students: ablations that need only one take it."""
    return settings.students[len(settings.students) // 2]


def at_steps(steps: int) -> dict[int, Knobs]:
    """`NUMBERS`, trained for as many steps as three rationales take."""
    return {l: knobs if l == 3 else (*knobs, ("student.steps", steps)) for l, knobs in NUMBERS.items()}


def shares_at(settings: RunSettings) -> dict[float, Knobs]:
    """Those of `SHARES` below the share that the other notebooks' students learn from, and this one."""
    most = settings.student.share
    return {share: (("student.share", share),) for share in SHARES if share < most} | {most: ()}


def candidates_at(settings: RunSettings) -> dict[int, Knobs]:
    """Those of `CANDIDATES` from which `k` passages can be chosen."""
    return {kappa: knobs for kappa, knobs in CANDIDATES.items() if kappa >= settings.retrieval.k}


def corpora(settings: RunSettings) -> dict[str, Knobs]:
    """Those of `CORPORA` that the dataset has: only the closed world has a neighbour."""
    return {name: knobs for name, knobs in CORPORA.items() if name != "neighbour" or settings.dataset == "world"}


def main_table(settings: RunSettings, methods: Collection[str]) -> list[Row]:
    """Tables 1 and 2."""
    return [Row(method, student) for student in settings.students for method in methods]


def dataset_size(settings: RunSettings) -> list[Row]:
    """Figure 4a."""
    return [Row(m, middle(settings), knobs) for knobs in shares_at(settings).values() for m in (FT, RD, BM25)]


def model_size(settings: RunSettings) -> list[Row]:
    """Figure 4b."""
    return [Row(m, student) for student in settings.students for m in (FT, RD, RERANKER)]


def oracle(settings: RunSettings, methods: Collection[str]) -> list[Row]:
    """Beside Figure 4b: what the same students answer with the passages that the teacher's rationales find."""
    return [Row("kard_silver", student) for student in settings.students if "kard_silver" in methods]


def rationales(settings: RunSettings, steps: int) -> list[Row]:
    """Table 3; `steps` are those that three rationales take."""
    return [Row(BM25, middle(settings), k) for k in dict.fromkeys([*NUMBERS.values(), *at_steps(steps).values()])]


def candidates(settings: RunSettings) -> list[Row]:
    """Table 4: the middle and the largest student."""
    students = sorted({middle(settings), settings.students[-1]} - {"random-t5"})
    return [Row(RERANKER, student, knobs) for student in students for knobs in candidates_at(settings).values()]


def passages(settings: RunSettings) -> list[Row]:
    """Table 5."""
    return [Row(m, middle(settings), knobs) for knobs in PASSAGES.values() for m in (BM25, RERANKER)]


def dapt(settings: RunSettings) -> list[Row]:
    """Figure 3."""
    adapted = {"none": (RD, RERANKER)}
    grid = corpora(settings).items()
    return [Row(m, middle(settings), knobs) for c, knobs in grid for m in adapted.get(c, ("dapt", "dapt_kard"))]


def rag(settings: RunSettings) -> list[Row]:
    """Table 7."""
    return [Row(method, middle(settings)) for method in IN_TABLE_7]


def cases(settings: RunSettings) -> list[Row]:
    """Table 6 and the failures."""
    return [Row(m, student) for student in settings.students for m in (RD, BM25, RERANKER)]


def own_data(settings: RunSettings, methods: Collection[str]) -> list[Row]:
    """Your own data: of these rows those that can be run."""
    return [Row(m, student) for student in settings.students for m in ON_OWN_DATA if m in methods]


def differences(settings: RunSettings) -> list[Row]:
    """The paper, each difference of the released code, and all of the reranker's."""
    knobs = [(), *RERANKER_DIFFERENCES.values(), *ASKING_DIFFERENCES.values()]
    return [Row(RERANKER, middle(settings), k) for k in knobs]


def sizes(settings: RunSettings, ailments: Collection[int] = ()) -> dict[int, Knobs]:
    """Number of ailments -> its settings: the usual number, and those given or the fewest there can be and twice it."""
    least, usual = WorldSettings.model_fields["ailments"].metadata[0].ge, settings.world.ailments
    return {n: at_size(settings.world, n) for n in sorted({usual, *(ailments or (least, 2 * usual))})}


def frontier(settings: RunSettings, ailments: Collection[int] = ()) -> list[Row]:
    """Remember or read: who recalls and who reads in worlds of several `sizes`."""
    grid = product(sizes(settings, ailments).values(), settings.students, IN_FRONTIER)
    return [Row(method, student, knobs) for knobs, student, method in grid]


def exposures(settings: RunSettings) -> list[Row]:
    """Recalling after being shown the same more often."""
    return [Row(RD, middle(settings), knobs) for knobs in EPOCHS.values()]


def extended(settings: RunSettings, methods: Collection[str]) -> list[Row]:
    """What stands beside methods of one's own, of these rows those that can be run: the smallest student."""
    return [Row(m, settings.students[0]) for m in BESIDE_YOURS if m in methods]


def all_grids(settings: RunSettings, methods: Collection[str], steps: int) -> dict[str, list[Row]]:
    """Notebook -> its grid, of those that run on the settings' dataset."""
    one = ("seeds", settings.seeds[:1])  # notebooks 17 and 19 take the first seed alone
    found = {
        "04": main_table(settings, methods),
        "05": dataset_size(settings),
        "06": [*model_size(settings), *oracle(settings, methods)],
        "07": rationales(settings, steps),
        "08": candidates(settings),
        "09": passages(settings),
        "10": dapt(settings),
        "11": rag(settings),
        "12": cases(settings),
        "15": own_data(settings, methods),
        "16": differences(settings),
        "17": [row._replace(knobs=(*row.knobs, one)) for row in (*frontier(settings), *exposures(settings))],
        "19": [row._replace(knobs=(one,)) for row in extended(settings, methods)],
    }
    alone = {"15": "own", "16": "world", "17": "world", "19": "world"}
    return {number: rows for number, rows in found.items() if alone.get(number, settings.dataset) == settings.dataset}
