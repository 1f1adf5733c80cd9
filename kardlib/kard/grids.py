"""The grids of the notebooks: which methods with which students under which settings; read by them and by `kard plan`.

A grid is a list of rows, each for all of the settings' seeds; its comparisons are between its rows.
"""

from collections.abc import Collection

from kardlib.kard.experiment import Knobs
from kardlib.kard.pipeline import Row
from kardlib.settings import RunSettings

FT, KA_FT, RD = "fine_tuning", "ka_fine_tuning", "reasoning_distillation"
BM25, RERANKER = "kard_bm25", "kard_reranker"

SHARES = (0.01, 0.05, 0.25, 1)  # of the training questions (KARD, Figure 4a, and 5 %)
NUMBERS = (1, 3, 5, 10)  # l: rationales of a question (Table 3, and one)
CANDIDATES = (10, 20, 50, 100)  # kappa* (Table 4, and 10)
PASSAGES = (1, 2, 3, 5)  # k (Table 5, and 5)
IN_TABLE_7 = (KA_FT, "rag", "rag_warm", RD, RERANKER, "kard_dense")
ON_OWN_DATA = (FT, KA_FT, RD, BM25, RERANKER)

_LOSS, _FROZEN = ("reranker.loss", "cross_entropy"), ("reranker.passage_gradient", False)
RERANKER_DIFFERENCES: dict[str, Knobs] = {  # what the released code does instead of the paper: notebook 16
    "cross-entropy": (_LOSS,),
    "passages without gradient": (_FROZEN,),
    "both of them": (_LOSS, _FROZEN),
    "falling temperatures": (("reranker.temperatures", "falling"),),
}
ASKING_DIFFERENCES: dict[str, Knobs] = {
    "last letter as the answer": (("answer", "last_letter"),),
    "another prompt at test": (("test_prompt", "passages_first"),),
}


def middle(settings: RunSettings) -> str:
    """The middle one of the students: ablations that need only one take it."""
    return settings.students[len(settings.students) // 2]


def at_share(share: float) -> Knobs:
    """Trained on a share of the questions; all of them are the settings as they are."""
    return () if share == 1 else (("student.share", share),)


def at_number(l: int) -> Knobs:
    """`l` rationales of a quarter of the questions: ten of all would train for too long."""
    return (("student.share", 0.25), ("teacher.rationales", l))


def at_steps(l: int, steps: int) -> Knobs:
    """The same, trained for as many steps as three rationales take."""
    return at_number(l) if l == 3 else (*at_number(l), ("student.steps", steps))


def at_candidates(kappa: int) -> Knobs:
    """Reranked from so many BM25 candidates, kappa*."""
    return (("retrieval.candidates", kappa),)


def at_passages(k: int) -> Knobs:
    """Asked with `k` passages; it was trained with as many as ever."""
    return (("retrieval.k", k),)


def at_corpus(corpus: str) -> Knobs:
    """Trained on this corpus first; "none": not at all."""
    return () if corpus == "none" else (("dapt.corpus", corpus),)


def candidate_numbers(settings: RunSettings) -> list[int]:
    """Those of `CANDIDATES` from which `k` passages can be chosen."""
    return [kappa for kappa in CANDIDATES if kappa >= settings.retrieval.k]


def corpora(settings: RunSettings) -> tuple[str, ...]:
    """Only the closed world has a neighbour."""
    return ("own", "neighbour") if settings.dataset == "world" else ("own",)


def main_table(settings: RunSettings, methods: Collection[str]) -> list[Row]:
    """Tables 1 and 2."""
    return [Row(method, student) for student in settings.students for method in methods]


def dataset_size(settings: RunSettings) -> list[Row]:
    """Figure 4a."""
    return [Row(m, middle(settings), at_share(share)) for share in SHARES for m in (FT, RD, BM25)]


def model_size(settings: RunSettings) -> list[Row]:
    """Figure 4b."""
    return [Row(m, student) for student in settings.students for m in (FT, RD, RERANKER)]


def oracle(settings: RunSettings, methods: Collection[str]) -> list[Row]:
    """Beside Figure 4b: what the same students answer with the passages that the teacher's rationales find."""
    return [Row("kard_silver", student) for student in settings.students if "kard_silver" in methods]


def rationales(settings: RunSettings, steps: int) -> list[Row]:
    """Table 3; `steps` are those that three rationales take."""
    knobs = [*(at_number(l) for l in NUMBERS), *(at_steps(l, steps) for l in NUMBERS)]
    return [Row(BM25, middle(settings), k) for k in dict.fromkeys(knobs)]


def candidates(settings: RunSettings) -> list[Row]:
    """Table 4: the middle and the largest student."""
    students = sorted({middle(settings), settings.students[-1]} - {"random-t5"})
    return [Row(RERANKER, s, at_candidates(kappa)) for s in students for kappa in candidate_numbers(settings)]


def passages(settings: RunSettings) -> list[Row]:
    """Table 5."""
    return [Row(m, middle(settings), at_passages(k)) for k in PASSAGES for m in (BM25, RERANKER)]


def dapt(settings: RunSettings) -> list[Row]:
    """Figure 3."""
    adapted = [Row(m, middle(settings), at_corpus(c)) for c in corpora(settings) for m in ("dapt", "dapt_kard")]
    return [Row(RD, middle(settings)), Row(RERANKER, middle(settings)), *adapted]


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
    """The paper, and each difference of the released code."""
    knobs = [(), *RERANKER_DIFFERENCES.values(), *ASKING_DIFFERENCES.values()]
    return [Row(RERANKER, middle(settings), k) for k in knobs]


def all_grids(settings: RunSettings, methods: Collection[str], steps: int) -> dict[str, list[Row]]:
    """Notebook -> its grid, of those that run on the settings' dataset."""
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
    }
    alone = {"15": "own", "16": "world"}
    return {number: rows for number, rows in found.items() if alone.get(number, settings.dataset) == settings.dataset}
