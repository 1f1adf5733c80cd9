"""The grids of the notebooks: which methods with which students under which settings; read by them and by `kard plan`.

A grid is a list of rows, each for all of the settings' seeds, with the comparisons between them.
"""

from collections.abc import Collection, Mapping
from itertools import product
from typing import Any

from kardlib.kard.experiment import Knobs
from kardlib.kard.frontier import at_size
from kardlib.kard.methods import SHOWN
from kardlib.kard.pipeline import Gain, Grid, Row
from kardlib.settings import RunSettings, SettingsError, WorldSettings

FT, KA_FT, RD = "fine_tuning", "ka_fine_tuning", "reasoning_distillation"
KA_FT_RERANKER = "ka_fine_tuning_reranker"  # the same student, asked with other passages
BM25, RERANKER = "kard_bm25", "kard_reranker"
*_, SAME = SHOWN  # in training KARD is shown what it reads when asked
NAMED = "named_by_reranker"  # the option that a passage names, which takes no student

# What is above what in the main table: the paper's claims, and controls that it lacks (what distillation adds to a
# student that reads the same, what KARD adds to KA-FT that reads the same, what gold passages and KL training add, and
# what it adds to show in training what will be read)
COMPARED = (
    (RERANKER, RD), (RERANKER, BM25), (RERANKER, KA_FT), (BM25, RD), (RD, FT), (KA_FT, FT), (FT, "few_shot"),
    ("few_shot_cot", "few_shot"), ("kard_silver", RERANKER), ("teacher_cot", RERANKER),
)  # fmt: skip
CONTROLS = (
    (BM25, "undistilled_bm25"), (RERANKER, "undistilled_reranker"), ("kard_silver", "undistilled_silver"),
    (BM25, KA_FT), (RERANKER, KA_FT_RERANKER), ("kard_gold", RERANKER), (RERANKER, "kard_untrained"),
    ("undistilled_gold", "undistilled"), (SAME, RERANKER), (SAME, RD),
)  # fmt: skip

# What an ablation varies: its value, and the settings that differ
SHARES = (0.01, 0.05, 0.25)  # of the training questions (KARD, Figure 4a, and 5 %), besides those that all others take
NUMBERS = (1, 3, 5, 10)  # l, rationales a question (Table 3, and one)
CANDIDATES: dict[int, Knobs] = {kappa: (("retrieval.candidates", kappa),) for kappa in (10, 20, 50, 100)}  # Table 4, 10
PASSAGES: dict[int, Knobs] = {k: (("retrieval.k", k),) for k in (1, 2, 3, 5)}  # read at test (Table 5, and 5)
CORPORA: dict[str, Knobs] = {"none": (), "own": (("dapt.corpus", "own"),), "neighbour": (("dapt.corpus", "neighbour"),)}
IN_TABLE_7 = (KA_FT, "rag", "rag_warm", RD, RERANKER, "kard_dense")
IN_SHOWN = (RD, KA_FT_RERANKER, RERANKER, *SHOWN)
IN_STRATA = ("bag_of_words", NAMED, FT, RD, "undistilled_reranker", KA_FT_RERANKER, RERANKER)
IN_FRONTIER = (FT, RD, "undistilled_reranker", RERANKER)
EPOCHS = (1, 2, 5, 10, 20)  # how often the same is shown
WORLDS, FEW_WORLDS = 10, 2  # the seed of the first other world, and how many of them the usual run has
FULL: dict[str, dict[str, Any]] = {  # parameters of the notebooks that draw figures ending in _full
    "17": {"ailments": [12, 30, 120, 240, 480]},
    "21": {"worlds": 20, "also": ["10", "shown"]},
}
IN_TARGETS = (BM25, RERANKER, "kard_helpful", "kard_helpful_both")
ON_OWN_DATA = (FT, KA_FT, RD, BM25, RERANKER)
IN_WORLDS = (*ON_OWN_DATA, KA_FT_RERANKER)
ALONE = {"15": "own", "16": "world", "17": "world", "19": "world", "21": "world"}  # whose grids one dataset has alone
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


def numbers_at(settings: RunSettings) -> dict[int, Knobs]:
    """Each of `NUMBERS`, of a quarter of the questions or of the settings' share if less: ten of all take long."""
    share = min(0.25, settings.student.share)
    return {l: (("student.share", share), ("teacher.rationales", l)) for l in NUMBERS}


def at_steps(numbers: dict[int, Knobs], steps: int) -> dict[int, Knobs]:
    """The same numbers, trained for as many steps as three rationales take."""
    return {l: knobs if l == 3 else (*knobs, ("student.steps", steps)) for l, knobs in numbers.items()}


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


def base_and_large(settings: RunSettings) -> tuple[str, str]:
    """Who stands for the paper's base and large student: these at its scale, else the middle and the largest one."""
    students, middle = settings.students, settings.middle
    return (students[0], middle) if settings.scale == "paper" else (middle, students[-1])


def base_student(settings: RunSettings) -> str:
    """Of Tables 5 and 7 and Figure 3."""
    return base_and_large(settings)[0]


def main_table(settings: RunSettings, methods: Collection[str]) -> Grid:
    """Tables 1 and 2. Of their gains the last are over the largest student fine-tuned, and over who reads nothing."""
    largest, gains = settings.students[-1], list[Gain]()
    for student in settings.students:
        pairs = [pair for pair in (*COMPARED, *CONTROLS) if {*pair} <= {*methods}]
        gains += [Gain(Row(above, student), Row(below, student)) for above, below in pairs]
        if RERANKER in methods:
            others = [Row(below, largest) for below in (FT, KA_FT) if below in methods and student != largest]
            others += [Row("bag_of_words", ""), Row(NAMED, "")]
            gains += [Gain(Row(RERANKER, student), other) for other in others]
    return Grid([Row(method, student) for student in settings.students for method in methods], gains)


def over_chance(settings: RunSettings, methods: Collection[str]) -> list[Gain]:
    """Do the students without passages know anything?"""
    knowing = [Row(m, student) for student in settings.students for m in (FT, RD) if m in methods]
    return [Gain(row, Row("chance", "")) for row in knowing]


def in_stratum(settings: RunSettings, methods: Collection[str]) -> list[Gain]:
    """KARD over who recalls, who learnt answers alone, who reads undistilled, and what its passages name; and KARD that
    is shown what it will read over who recalls and over KARD.
    """
    gains = []
    for s in settings.students if RERANKER in methods else ():
        rivals = [Row(m, s) for m in (RD, FT, KA_FT, "undistilled_reranker") if m in methods]
        gains += [Gain(Row(RERANKER, s), rival) for rival in [*rivals, Row(NAMED, "")]]
        gains += [Gain(Row(SAME, s), Row(m, s)) for m in (RERANKER, RD) if {m, SAME} <= {*methods}]
    return gains


def dataset_size(settings: RunSettings) -> Grid:
    """Figure 4a: gains at the same share, of a quarter over all, and whether the lead over fine-tuning widens."""
    shares = shares_at(settings)
    at = {(m, x): Row(m, settings.middle, knobs, "share", x) for x, knobs in shares.items() for m in (FT, RD, BM25)}
    leads = {x: Gain(at[BM25, x], at[FT, x]) for x in shares}
    few, most = min(shares), max(shares)
    gains = [gain for x, lead in leads.items() for gain in (lead, Gain(at[BM25, x], at[RD, x]))]
    gains += [Gain(at[BM25, 0.25], at[FT, most])] if 0.25 in shares and most > 0.25 else []
    return Grid([*at.values()], gains + ([leads[most]._replace(less=leads[few])] if few < most else []))


def model_size(settings: RunSettings) -> Grid:
    """Figure 4b: KARD over its rivals, and how the lead of the largest student differs from that of the smallest."""
    small, large = settings.students[0], settings.students[-1]
    gains = {(m, s): Gain(Row(RERANKER, s), Row(m, s)) for s in settings.students for m in (FT, RD)}
    growth = [gains[m, large]._replace(less=gains[m, small]) for m in (FT, RD) if small != large]
    return Grid([Row(m, s) for s in settings.students for m in (FT, RD, RERANKER)], [*gains.values(), *growth])


def oracle(settings: RunSettings, methods: Collection[str]) -> Grid:
    """Beside Figure 4b: what the same students answer with the passages that the teacher's rationales find."""
    return Grid([Row("kard_silver", student) for student in settings.students if "kard_silver" in methods])


def rationales(settings: RunSettings, steps: int) -> Grid:
    """Table 3: every number over three, at equal epochs and at equal steps; `steps` are those that three take."""
    numbers = numbers_at(settings)
    conditions = {"": numbers, "equal steps": at_steps(numbers, steps)}
    rows = [Row(BM25, settings.middle, knobs, "l", l, at) for at, by in conditions.items() for l, knobs in by.items()]
    three = {row.at: row for row in rows if row.x == 3}
    return Grid(rows, [Gain(row, three[row.at]) for row in rows if row.x != 3])


def candidates(settings: RunSettings) -> Grid:
    """Table 4: the paper's base and large student, here the middle and the largest; most candidates over fewer."""
    students = {*base_and_large(settings)} - {"random-t5"}
    parts = [ranked(settings, student) for student in sorted(students)]
    return Grid([row for part in parts for row in part.rows], [gain for part in parts for gain in part.gains])


def ranked(settings: RunSettings, student: str = "") -> Grid:
    """One student's part of Table 4; without a student the rankings alone."""
    rows = [Row(RERANKER, student, knobs, "kappa*", kappa) for kappa, knobs in candidates_at(settings).items()]
    return Grid(rows, [Gain(rows[-1], row) for row in rows[:-1]])


def passages(settings: RunSettings) -> Grid:
    """Table 5: more passages over one, and the reranker's over BM25's."""
    student = base_student(settings)
    at = {(m, k): Row(m, student, knobs, "k", k) for m in (BM25, RERANKER) for k, knobs in PASSAGES.items()}
    gains = [Gain(row, at[m, 1]) for (m, k), row in at.items() if k > 1]
    return Grid([*at.values()], [*gains, *(Gain(at[RERANKER, k], at[BM25, k]) for k in PASSAGES)])


def dapt(settings: RunSettings) -> Grid:
    """Figure 3: each student over itself without the first stage, and KARD without it over RD with it."""
    plain = {"dapt": RD, "dapt_kard": RERANKER}
    student = base_student(settings)
    without = {m: Row(plain[m], student, (), "corpus", at="none") for m in plain}
    after = [Row(m, student, knobs, "corpus", at=corpus)
             for corpus, knobs in corpora(settings).items() if corpus != "none" for m in plain]  # fmt: skip
    gains = [Gain(row, without[row.method]) for row in after]
    rivals = [Gain(without["dapt_kard"], row) for row in after if row.method == "dapt"]
    return Grid([*without.values(), *after], gains + rivals)


def rag(settings: RunSettings) -> Grid:
    """Table 7; the last four gains are ours: they tell the idea from a retriever that did not learn."""
    at = {method: Row(method, base_student(settings)) for method in IN_TABLE_7}
    pairs = [(RERANKER, "rag"), (RD, "rag"), ("rag", KA_FT), (RERANKER, "rag_warm"), ("rag_warm", "rag"),
             ("rag_warm", "kard_dense"), ("kard_dense", RERANKER)]  # fmt: skip
    return Grid([*at.values()], [Gain(at[above], at[below]) for above, below in pairs])


def shown(settings: RunSettings) -> Grid:
    """What writing adds, and what the passages of training: whoever is asked reads the reranker's."""
    at = {method: Row(method, base_student(settings)) for method in IN_SHOWN}
    ka_ft, silver, bm25, same = KA_FT_RERANKER, *SHOWN
    pairs = [(bm25, ka_ft), (RERANKER, silver), (silver, ka_ft), (bm25, RERANKER), (same, RERANKER), (same, bm25)]
    pairs += [(RERANKER, RD), (bm25, RD), (same, RD)]
    return Grid([*at.values()], [Gain(at[above], at[below]) for above, below in pairs])


def cases(settings: RunSettings) -> Grid:
    """Table 6 and the failures: who recalls and who reads; KARD (BM25) stands between where `methods` asks for it."""
    between = [BM25] if settings.methods is None or BM25 in settings.methods else []
    rows = [Row(m, student) for student in settings.students for m in (RD, *between, RERANKER)]
    return Grid(rows, [Gain(Row(RERANKER, student), Row(RD, student)) for student in settings.students])


def own_data(settings: RunSettings, methods: Collection[str]) -> Grid:
    """Your own data: of these rows those that can be run, each over fine-tuning, and KARD over RD."""
    pairs = [*((m, FT) for m in ON_OWN_DATA[1:]), (BM25, RD), (RERANKER, RD)]
    pairs = [pair for pair in pairs if {*pair} <= {*methods}]
    rows = [Row(m, student) for student in settings.students for m in ON_OWN_DATA if m in methods]
    return Grid(rows, [Gain(Row(a, student), Row(b, student)) for student in settings.students for a, b in pairs])


def differences(settings: RunSettings, differ: Mapping[str, Knobs] = RERANKER_DIFFERENCES | ASKING_DIFFERENCES) -> Grid:
    """The paper, and what the released code does otherwise: each difference, and all of the reranker's."""
    ways = {"the paper": (), **differ}
    rows = [Row(RERANKER, settings.middle, knobs, "difference", at=name) for name, knobs in ways.items()]
    return Grid(rows, [Gain(row, rows[0]) for row in rows[1:]])


def sizes(settings: RunSettings, ailments: Collection[int] = ()) -> dict[int, Knobs]:
    """Number of ailments -> its settings: the usual one, and those given or the fewest there can be and 8 times it."""
    (least, most), usual = WorldSettings.model_fields["ailments"].metadata, settings.world.ailments
    return {n: at_size(settings.world, n) for n in sorted({usual, *(ailments or (least.ge, min(most.le, 8 * usual)))})}


def frontier(settings: RunSettings, ailments: Collection[int] = ()) -> Grid:
    """Remember or read: who recalls and who reads in worlds of several `sizes`.

    Claims are tested on the gains: how KARD's lead over RD grows in the usual sizes, and in those that are given what
    it adds to show in training what will be read.
    """
    grid = sizes(settings, ailments)
    each = product(grid.items(), settings.students, (*IN_FRONTIER, *([SAME] if ailments else [])))
    at = {(m, student, n): Row(m, student, knobs, "ailments", n) for (n, knobs), student, m in each}
    places = [*product(settings.students, grid)]
    if ailments:
        return Grid([*at.values()], [Gain(at[SAME, *p], at[rival, *p]) for p in places for rival in (RERANKER, RD)])
    leads = {(s, n): Gain(at[RERANKER, s, n], at[RD, s, n]) for s, n in places}
    growth = [lead._replace(less=leads[s, min(grid)]) for (s, n), lead in leads.items() if n == max(grid)]
    return Grid([*at.values()], growth)


def exposures(students: Collection[str]) -> Grid:
    """Recalling and reading after being shown the same more often."""
    each = product(EPOCHS, students, (RD, RERANKER))
    return Grid([Row(m, student, (("student.epochs", n),), "epochs", n) for n, student, m in each])


def in_worlds(settings: RunSettings, also: Collection[str] = ()) -> Grid:
    """What is asked in other worlds too: the main table without prompts and oracles, and what trains no one else.

    `also` names what trains more students there: notebook "10", "11", or "shown" (`SAME`). Raises SettingsError for
    others.
    """
    asked = {"10": dapt(settings), "11": rag(settings), "shown": main_table(settings, (RD, RERANKER, SAME))}
    if strange := [name for name in also if name not in asked]:
        raise SettingsError(f"also={strange}: other worlds are asked what these name: {', '.join(asked)}")
    dense, kard = Row("kard_dense", settings.middle), Row(RERANKER, settings.middle)
    parts = [
        main_table(settings, IN_WORLDS), model_size(settings), candidates(settings), passages(settings),
        differences(settings, ASKING_DIFFERENCES), Grid([dense, kard], [Gain(dense, kard)]),
        *(asked[name] for name in also),
    ]  # fmt: skip
    rows = dict.fromkeys(row for part in parts for row in part.rows)
    return Grid([*rows], [*dict.fromkeys(gain for part in parts for gain in part.gains)])


def beyond_guessing(settings: RunSettings) -> list[Gain]:
    """What is known beyond guessing by who recalls, by who reads and by a bag of words; and RD by a larger student."""
    small, large = Row(RD, settings.students[0]), Row(RD, settings.students[-1])
    others = [*(Row(RERANKER, student) for student in settings.students), Row("bag_of_words", "")]
    gains = over_chance(settings, IN_WORLDS) + [Gain(row, Row("chance", "")) for row in others]
    return gains + ([Gain(large, small)] if large != small else [])


def targets(settings: RunSettings) -> Grid:
    """Rerankers that learn what helps the student, over the one that learns BM25's order."""
    rows = [Row(m, settings.middle) for m in IN_TARGETS]
    return Grid(rows, [Gain(row, rows[1]) for row in rows[2:]])


def extended(settings: RunSettings, methods: Collection[str]) -> Grid:
    """What stands beside methods of one's own, of these rows those that can be run: the smallest student."""
    return Grid([Row(m, settings.students[0]) for m in BESIDE_YOURS if m in methods])


def all_grids(settings: RunSettings, methods: Collection[str], steps: int) -> dict[str, list[Row]]:
    """Notebook -> the rows of its grid, of those that run on the settings' dataset."""
    one = ("seeds", settings.seeds[:1])  # notebooks 17 and 19 take the first seed alone
    one_student = settings.override({"students": [settings.middle]})  # 21
    drawn = [(("world.seed", s), ("seeds", (s,))) for s in range(WORLDS, WORLDS + FEW_WORLDS)]
    found = {
        "04": main_table(settings, methods).rows,
        "05": dataset_size(settings).rows,
        "06": [*model_size(settings).rows, *oracle(settings, methods).rows],
        "07": rationales(settings, steps).rows,
        "08": candidates(settings).rows,
        "09": passages(settings).rows,
        "10": dapt(settings).rows,
        "11": [*dict.fromkeys([*rag(settings).rows, *shown(settings).rows])],
        "12": cases(settings).rows,
        "15": own_data(settings, methods).rows,
        "16": differences(settings).rows,
        "17": [
            r._replace(knobs=(*r.knobs, one)) for r in (*frontier(settings).rows, *exposures([settings.middle]).rows)
        ],
        "19": [row._replace(knobs=(one,)) for row in extended(settings, methods).rows],
        "20": targets(settings).rows,
        "21": [r._replace(knobs=r.knobs + w) for w in drawn for r in in_worlds(one_student).rows],
    }
    return {number: rows for number, rows in found.items() if ALONE.get(number, settings.dataset) == settings.dataset}
