"""The methods compared in the tables and in Figure 3 of KARD, as data: what each trains on and what it reads, and when.

A row is its fields: two rows that agree in what they train on and read in training share one student, and no
method has code of its own.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, get_args

from kardlib.errors import suggest
from kardlib.registry import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, Entry, RegistryError, enter

ORACLES = ("bm25_rationale", "rationale", "gold")  # read at test, they take more than the question
WITHOUT_RATIONALES = {"undistilled", "undistilled_gold", "kard_untrained", "kard_gold"}  # where nobody wrote any
SHOWN = ("ka_fine_tuning_shown_silver", "kard_shown_bm25", "kard_shown_reranker")  # other passages in training: 11

# what the student is fine-tuned to write; "rationale": rationale, then answer
Learns = Literal["", "answer", "rationale"]
BUILT_IN = frozenset({  # what a student can read
    "",
    "bm25_question",  # topk(rho(d | x))
    "bm25_rationale",  # topk(rho(d | r)): training always, at test the oracle that the paper calls silver knowledge
    "reranker",  # topk(f_phi(d, x)) among the kappa* candidates of BM25
    "untrained",  # the same before its training on KL
    "helpful",  # a reranker that learns what helps the student (helpful.py)
    "helpful_both",  # and one that learns both targets
    "gold",  # the annotators' passages, an oracle, then BM25's
    "rationale",  # the teacher's rationale itself, an oracle
    "rag",  # topk(q(x) . d) of a dual encoder that is trained together with the student, for training and at test
    "rag_warm",  # the same, trained before that on what rationales retrieve
    "dense",  # topk(q(x) . d) of that start, at test only
})  # fmt: skip
UNRANKED = ("", "rationale", "gold", "bm25_question", "bm25_rationale")  # what is read without anything that ranks
UNTAUGHT = BUILT_IN - {"helpful", "helpful_both"}  # what ranks without a student that taught it, as yours may have
READS = {*BUILT_IN}  # `rankings.register_retriever` adds to it
Shots = Literal["", "answer", "rationale"]  # what the examples of a few-shot prompt show


@dataclass(frozen=True)
class Method:
    """One row of the tables."""

    id: str
    label: str
    learns: Learns = ""
    reads_in_training: str = ""
    reads_at_test: str = ""
    shots: Shots = ""
    adapted: bool = False  # first trained as a language model on a domain's passages (DAPT)
    samples: int | None = None  # texts of a question, whose answers vote; None: as `student.samples` says

    @property
    def rag(self) -> bool:
        """Whether student and retriever are trained together, as one artifact."""
        return self.reads_in_training in ("rag", "rag_warm")

    @property
    def is_shown_answers(self) -> bool:
        """Whether training or a prompt shows the student how answers are named."""
        return bool(self.learns or self.shots)

    @property
    def writes(self) -> Learns:
        """What the student is expected to write at test: an answer alone, or a rationale first."""
        return self.learns or self.shots or "rationale"


METHODS: dict[str, Method] = {}


def register_method(method: Method, **look: Any) -> None:
    """Add a row to the tables and to all figures, the built-in ones below and a user's own alike.

    `look` are fields of `registry.Entry` except the label, e.g. `color="#0072B2"`; without them the row is drawn in the
    next colour of the palette, in the block "added". Such a row is replaced by one of the same id and label, so that a
    cell can be run again. Raises RegistryError for an id that is taken otherwise and for a field whose value nobody
    knows how to run.
    """
    taught = READS - {"rationale"}  # the teacher's words hold the answer that is learnt
    known = {"learns": get_args(Learns), "shots": get_args(Shots), "reads_in_training": taught, "reads_at_test": READS}
    cannot = f"the method {method.id!r} cannot be run"
    for field, values in known.items():
        if (value := getattr(method, field)) not in values:
            listed = ", ".join(map(repr, sorted(values)))
            raise RegistryError(f"{cannot}: {field} is {value!r}, not one of {listed}")
    if method.samples not in (None, *range(1, 1000)):
        raise RegistryError(f"{cannot}: samples is {method.samples!r}, not 1 to 999")
    if method.rag and (method.learns != "rationale" or method.adapted):
        raise RegistryError(f"{cannot}: RAG trains on rationales, and from the student as it comes")
    if method.shots and method.reads_at_test not in ("", "bm25_question"):
        raise RegistryError(f"{cannot}: the examples of a prompt show BM25's passages or none")
    enter({method.id: Entry(method.label, **look)})
    METHODS[method.id] = method


enter({  # what no student is needed for (floors.py)
    "majority_class": Entry("Majority class", GREY, "s", ":", block="floors"),
    "option_prior": Entry("Option prior", GREY, "d", ":", block="floors"),
    "longest_option": Entry("Longest option", GREY, "p", ":", block="floors"),
    "bag_of_words": Entry("Bag of words", GREY, "h", ":", block="floors"),
    "named_by_bm25": Entry("Option named (BM25)", GREY, "<", ":", block="floors"),
    "named_by_reranker": Entry("Option named (reranker)", GREY, ">", ":", block="floors"),
})  # fmt: skip

for block, rows in {  # in the order of Tables 1, 2 and 7 and of Figure 3, our controls among them
    "prompted": [
        (GREY, "v", "--", Method("few_shot", "Few-shot ICL", shots="answer")),
        (GREY, "^", "-.", Method("few_shot_cot", "Few-shot ICL + CoT", shots="rationale")),
        (GREY, "P", ":",
         Method("ka_few_shot_cot", "KA few-shot ICL + CoT", reads_at_test="bm25_question", shots="rationale")),
    ],
    "undistilled": [
        (GREY, "X", "--", Method("undistilled", "Undistilled (no passages)")),
        (GREY, "o", ":", Method("undistilled_bm25", "Undistilled (BM25)", reads_at_test="bm25_question")),
        (GREY, "D", ":", Method("undistilled_reranker", "Undistilled (reranker)", reads_at_test="reranker")),
        (GREY, "p", "-", Method("undistilled_silver", "Undistilled (silver, oracle)", reads_at_test="bm25_rationale")),
        (GREY, "H", "-", Method("undistilled_gold", "Undistilled (gold, oracle)", reads_at_test="gold")),
    ],
    "fine-tuned": [
        (PINK, "v", ":", Method("fine_tuning", "Fine-tuning (FT)", "answer")),
        (PINK, "P", "--",
         Method("ka_fine_tuning", "Knowledge-augmented FT", "answer", "bm25_question", "bm25_question")),
        (PINK, "D", "--", Method("ka_fine_tuning_reranker", "KA-FT (reranker)", "answer", "bm25_question", "reranker")),
        (PINK, "s", "-",
         Method("ka_fine_tuning_shown_silver", "KA-FT, shown silver", "answer", "bm25_rationale", "reranker")),
    ],
    "distilled": [
        (RED, "X", "-.", Method("rag", "RAG + RD", "rationale", "rag", "rag")),
        (RED, "<", "-", Method("rag_warm", "RAG + RD, warm start", "rationale", "rag_warm", "rag_warm")),
        (RED, "d", ":", Method("dapt", "DAPT + RD", "rationale", adapted=True)),
        (RED, "h", "--",
         Method("dapt_kard", "DAPT + KARD (reranker)", "rationale", "bm25_rationale", "reranker", adapted=True)),
        (ORANGE, "s", "-.", Method("reasoning_distillation", "Reasoning distillation (RD)", "rationale")),
        (SKY, "o", "--", Method("kard_bm25", "KARD (BM25)", "rationale", "bm25_rationale", "bm25_question")),
        (SKY, "s", ":", Method("kard_untrained", "KARD (reranker, no KL)", "rationale", "bm25_rationale", "untrained")),
        (BLUE, "D", "-", Method("kard_reranker", "KARD (reranker)", "rationale", "bm25_rationale", "reranker")),
        (GREEN, "^", "-",
         Method("kard_helpful", "KARD (reranker, student's target)", "rationale", "bm25_rationale", "helpful")),
        (PINK, "h", "-",
         Method("kard_helpful_both", "KARD (reranker, both targets)", "rationale", "bm25_rationale", "helpful_both")),
        (BLUE, "<", "-.", Method("kard_dense", "KARD (dense retriever)", "rationale", "bm25_rationale", "dense")),
        (BLUE, "o", "-.",
         Method("kard_shown_bm25", "KARD, shown BM25's", "rationale", "bm25_question", "reranker")),
        (BLUE, "H", "--",
         Method("kard_shown_reranker", "KARD, shown the reranker's", "rationale", "reranker", "reranker")),
    ],
    "oracles": [
        (GREEN, "p", ":",
         Method("kard_silver", "KARD (silver, oracle)", "rationale", "bm25_rationale", "bm25_rationale")),
        (GREEN, "H", "-.", Method("kard_gold", "KARD (gold, oracle)", "rationale", "bm25_rationale", "gold")),
        (BLACK, "*", ":", Method("teacher_cot", "Teacher CoT (oracle)", reads_at_test="rationale")),
    ],
}.items():  # fmt: skip
    for color, marker, line, row in rows:
        register_method(row, block=block, color=color, marker=marker, line=line, hollow=row.reads_at_test in ORACLES)

enter({  # what is retrieved (Figure 4c); dense retrievers before the student joins in have RAG's markers, in grey
    "bm25": Entry("BM25", SKY, "o", "--", block="retrievers"),
    "untrained": Entry("Reranker, pretrained, no KL", ORANGE, "s", "-.", block="retrievers"),
    "random_encoder": Entry("Reranker, random weights", GREY, "v", "-", block="retrievers"),
    "reranker": Entry("Reranker, trained", BLUE, "D", "-", block="retrievers"),
    "helpful": Entry("Reranker, student's target", GREEN, "^", "-", block="retrievers"),
    "helpful_both": Entry("Reranker, both targets", PINK, "h", "-", block="retrievers"),
    "silver": Entry("Silver (rationale query)", GREEN, "p", ":", hollow=True, block="retrievers"),
    "dense": Entry("Dense, untrained", GREY, "X", ":", block="retrievers"),
    "dense_warm": Entry("Dense, contrastive", GREY, "<", "--", block="retrievers"),
    "chance": Entry("Chance", GREY, line=(0, (4, 3)), block="chance"),
})  # fmt: skip


def main_rows(
    oracles: bool, rationales: bool, gold: bool = False, only: Collection[str] | None = None
) -> dict[str, Method]:
    """The rows of Tables 1 and 2 that can be run, our controls, and what a user has added.

    `oracles`: somebody wrote rationales for the test questions too; where nobody did, other controls take their place,
    some of them where `gold` passages of the test questions are known. Without any rationales there are only answers to
    learn, and nothing that trains a reranker. `only`: those that are wanted, else all but `SHOWN`. Raises RegistryError
    for an unknown one.
    """
    if unknown := [name for name in only or () if name not in METHODS]:
        raise RegistryError(f"methods: there is no {unknown[0]!r}{suggest(unknown[0], METHODS)}")
    found = dict.fromkeys(("rag", "rag_warm", "dense", "helpful", "helpful_both"), False)  # Table 7's, notebook 20's
    found |= {"bm25_rationale": oracles, "rationale": oracles, "gold": gold}
    rows = {
        name: m for name, m in METHODS.items()
        if not m.adapted and found.get(m.reads_at_test, True)
        and not (oracles and name in WITHOUT_RATIONALES) and (name not in SHOWN if only is None else name in only)
    }  # fmt: skip
    taught = {"rationale", "bm25_rationale", "reranker"}
    uses = {name: {m.learns, m.shots, m.reads_in_training, m.reads_at_test} for name, m in rows.items()}
    return {name: m for name, m in rows.items() if rationales or taught.isdisjoint(uses[name])}
