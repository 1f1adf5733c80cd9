"""What tells one trained student from another, and one set of predictions from another.

What a student's name depends on stands in `StudentKey`, a prediction's in `PredictionKey`: cells of a grid that agree
in it share one artifact, and `kard plan` counts by them.
"""

from typing import Any, NamedTuple

from kardlib.artifacts.store import canonical_json
from kardlib.data.prompts import SHOTS
from kardlib.kard.experiment import Cell
from kardlib.kard.methods import METHODS, UNRANKED, UNTAUGHT
from kardlib.kard.rankings import RETRIEVERS
from kardlib.models.catalogue import LOADERS, identify
from kardlib.settings import RunSettings, StudentSettings


class StudentKey(NamedTuple):
    """What tells one trained student from another: what it learns from, and how."""

    student: str
    learns: str
    reads: str  # in training
    corpus: str  # on which it was trained before (DAPT)
    seed: int
    others: str  # the other settings of its texts and its training


class PredictionKey(NamedTuple):
    """What tells one set of predictions from another: who is asked, and what."""

    student: StudentKey | None  # None: as it comes
    model: str
    method: str  # where retriever and student are trained together
    reads: str
    ranked_by: str  # the settings of what was trained to rank, where it decides what is read
    prompt: str
    passages: int
    candidates: int
    shots: str
    writes: str
    written: str  # the settings of what is asked, and of generation
    seed: int


def student_key(settings: RunSettings, cell: Cell) -> StudentKey | None:
    """None where a method trains no student."""
    method, knobs = METHODS[cell.method], student_settings(settings, cell)
    if not method.learns:
        return None
    others = {
        "training": knobs.of_training() | settings.student.model_dump(include={"share", "examples"}),
        "world": settings.world.model_dump(),
        "k": settings.retrieval.k_training,
        "teacher": settings.teacher.model_dump(mode="json"),
        "knowledge": settings.knowledge.model_dump(),
        "answer_in_query": settings.retrieval.answer_in_query,
        "dapt": settings.dapt.model_dump() if method.adapted else None,
        "rag": settings.rag.model_dump() if method.rag else None,
    }
    if not method.rag and method.reads_in_training not in UNRANKED:
        others["ranked_by"] = _ranker(settings, method.reads_in_training)
        others["candidates"] = settings.retrieval.candidates
    corpus = settings.dapt.corpus if method.adapted else ""
    return StudentKey(cell.student, method.learns, method.reads_in_training, corpus, cell.seed, canonical_json(others))


def prediction_key(settings: RunSettings, cell: Cell) -> PredictionKey:
    """Without a student of its own a cell's texts depend on the seed only where something is drawn or trained."""
    method, student = METHODS[cell.method], student_key(settings, cell)
    reads, knobs = method.reads_at_test, student_settings(settings, cell)
    seeded = knobs.samples > 1 or cell.student in LOADERS or (reads in RETRIEVERS and RETRIEVERS[reads].seeded)
    found_by = [settings.model_dump(mode="json", include={"teacher", "knowledge"}), settings.retrieval.answer_in_query]
    asked = [settings.world.model_dump(), knobs.of_writing(), *([] if student else [*found_by, knobs.revision])]
    return PredictionKey(
        student, cell.student, cell.method if method.rag else "", reads,
        "" if reads in UNRANKED else canonical_json([_ranker(settings, reads), found_by]),
        settings.test_prompt, settings.retrieval.k if reads not in ("", "rationale") else 0,
        settings.retrieval.candidates if reads not in UNRANKED else 0,
        method.shots, method.writes, canonical_json(asked), cell.seed if student or seeded else 0,
    )  # fmt: skip


def _ranker(settings: RunSettings, reads: str) -> dict[str, Any]:
    """The settings of what ranks passages; of a reranker that learns what helps a student, those of the student too."""
    taught = set() if reads in UNTAUGHT else {"students", "student", "retrieval"}
    return settings.model_dump(mode="json", include={"reranker", "rag"} | taught)


def student_settings(settings: RunSettings, cell: Cell) -> StudentSettings:
    """A cell's student, with room for as many sources as its prompt holds; what is asked stands last and is kept."""
    method = METHODS[cell.method]
    student = settings.student.of(cell.student, method.learns, method.reads_in_training)
    if method.shots:
        student = student.model_copy(update={"max_source_tokens": (SHOTS + 1) * student.max_source_tokens})
    return student.model_copy(update={"samples": method.samples or student.samples})


def student_spec(settings: StudentSettings, seed: int) -> dict[str, Any]:
    """What a student's artifact is named by, besides its examples."""
    return {"settings": settings.of_training() | {"model": identify(settings.model, settings.revision)}, "seed": seed}
