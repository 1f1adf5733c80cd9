"""The methods compared in the tables and in Figure 3 of KARD, as data: what each trains on and what it reads, and when.

A row is its three fields: two rows that agree in what they train on and read in training share one student, and no
method has code of its own.
"""

from dataclasses import dataclass
from typing import Literal

Learns = Literal[
    "", "answer", "rationale"
]  # what the student is fine-tuned to write; "rationale": rationale, then answer
Reads = Literal[
    "",
    "bm25_question",  # topk(rho(d | x))
    "bm25_rationale",  # topk(rho(d | r)): training always, at test the oracle that the paper calls silver knowledge
    "reranker",  # topk(f_phi(d, x)) among the kappa* candidates of BM25
    "rationale",  # the teacher's rationale itself, an oracle
    "rag",  # topk(q(x) . d) of a dual encoder that is trained together with the student, for training and at test
    "rag_warm",  # the same, trained before that on what rationales retrieve
    "dense",  # topk(q(x) . d) of that start, at test only
]
Shots = Literal["", "answer", "rationale"]  # what the examples of a few-shot prompt show


@dataclass(frozen=True)
class Method:
    """One row of the tables."""

    id: str
    label: str
    learns: Learns = ""
    reads_in_training: Reads = ""
    reads_at_test: Reads = ""
    shots: Shots = ""
    adapted: bool = False  # first trained as a language model on a domain's passages (DAPT)

    @property
    def rag(self) -> bool:
        """Whether student and retriever are trained together, as one artifact."""
        return self.reads_in_training in ("rag", "rag_warm")

    @property
    def writes(self) -> Learns:
        """What the student is expected to write at test: an answer alone, or a rationale first."""
        return self.learns or self.shots or "rationale"


METHODS = {
    m.id: m
    for m in (
        Method("few_shot", "Few-shot ICL", shots="answer"),
        Method("few_shot_cot", "Few-shot ICL + CoT", shots="rationale"),
        Method("ka_few_shot_cot", "KA few-shot + CoT", reads_at_test="bm25_question", shots="rationale"),
        Method("fine_tuning", "Fine-tuning (FT)", "answer"),
        Method("ka_fine_tuning", "KA fine-tuning", "answer", "bm25_question", "bm25_question"),
        Method("rag", "RAG + RD", "rationale", "rag", "rag"),
        Method("rag_warm", "RAG + RD, warm start", "rationale", "rag_warm", "rag_warm"),
        Method("dapt", "DAPT + RD", "rationale", adapted=True),
        Method("dapt_kard", "DAPT + KARD (reranker)", "rationale", "bm25_rationale", "reranker", adapted=True),
        Method("reasoning_distillation", "Reasoning distillation (RD)", "rationale"),
        Method("kard_bm25", "KARD (BM25)", "rationale", "bm25_rationale", "bm25_question"),
        Method("kard_reranker", "KARD (reranker)", "rationale", "bm25_rationale", "reranker"),
        Method("kard_dense", "KARD (dense retriever)", "rationale", "bm25_rationale", "dense"),
        Method("kard_silver", "KARD (silver, oracle)", "rationale", "bm25_rationale", "bm25_rationale"),
        Method("teacher_cot", "Teacher CoT (oracle)", reads_at_test="rationale"),
    )
}

DENSE: tuple[Reads, ...] = ("rag", "rag_warm", "dense")
MAIN_ROWS = [name for name, m in METHODS.items() if not m.adapted and m.reads_at_test not in DENSE]  # Tables 1 and 2


def main_rows(oracles: bool, rationales: bool) -> dict[str, Method]:
    """The rows of Tables 1 and 2 that can be run.

    `oracles`: somebody wrote rationales for the test questions too. Without any rationales there are only answers to
    learn.
    """
    needs_oracle = ("bm25_rationale", "rationale")
    rows = {name: METHODS[name] for name in MAIN_ROWS}
    rows = {name: m for name, m in rows.items() if oracles or m.reads_at_test not in needs_oracle}
    return {name: m for name, m in rows.items() if rationales or m.writes == "answer"}
