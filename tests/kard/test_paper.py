"""The paper's preset from questions to predictions, with shrunken models of its classes and few questions."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kardlib.artifacts.store import Store
from kardlib.data.world import build_world
from kardlib.kard.experiment import Cell, open_settings
from kardlib.kard.helpful import TARGETS
from kardlib.kard.methods import METHODS, SHOWN
from kardlib.kard.pipeline import answer
from kardlib.kard.teacher import symbolic_teacher
from kardlib.models.catalogue import MODELS
from kardlib.presets import preset
from kardlib.settings import WorldSettings
from tests.models.test_catalogue import shrink

WORLD = WorldSettings(ailments=12, cases=5, notes=5, train=24, dev=2, test=4, yes_no=0)


def write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())


def write_release(folder: Path) -> None:
    """A small closed world as "obqa" in the layout of KARD's release."""
    world = build_world(WORLD)
    for split, questions in world.splits.items():
        rows = ({"id": q.id, "sent1": q.text, "sent2": "", "label": q.answer}
                | {f"ending{i}": option for i, option in enumerate(q.options)} for q in questions)  # fmt: skip
        write_rows(folder / "kard" / "obqa" / f"{split}.json", rows)
    train = world.splits["train"]
    written: dict[str, list[str]] = {}
    for rationale in symbolic_teacher(world, 0.15, seed=0)(train, 3):
        written.setdefault(rationale.question_id, []).append(rationale.text)
    recorded = ({"idx": i, "rationales": written[q.id]} for i, q in enumerate(train))
    write_rows(folder / "kard" / "obqa" / "rationales_train.jsonl.gz", recorded)
    passages = ({"id": id, "contents": text} for id, text in world.texts.items())
    write_rows(folder / "kb" / "obqa" / "passages.jsonl.gz", passages)


def test_every_row_of_the_papers_tables_gives_predictions(tmp_path: Path) -> None:
    write_release(tmp_path / "data")
    paper = preset("paper", "obqa", str(tmp_path / "data"))
    names = {"student": paper.students[0], "reranker": paper.reranker.model, "retriever": paper.rag.model}
    models = {role: str(shrink(MODELS[name], tmp_path / role)) for role, name in names.items()}
    settings = paper.override({
        "seeds": [0], "students": [models["student"]], "reranker.model": models["reranker"],
        "rag.model": models["retriever"], "student.epochs": 1, "student.max_new_tokens": 48, "dapt.epochs": 1,
        "reranker.epochs": 1, "rag.epochs": 1, "rag.passages": 2, "rag.contrastive_epochs": 1,
    })  # fmt: skip
    assert settings.student.samples == 5 and settings.reranker.lora and settings.student.gradient_checkpointing
    experiment = open_settings(settings, Store(tmp_path / "store"))
    rows = [*experiment.methods, *SHOWN, "dapt", "dapt_kard", "rag", "rag_warm", "kard_dense"]
    rows += [f"kard_{name}" for name in TARGETS]
    unknown = set(METHODS) - {*rows}  # nobody explained what is asked, nor named gold passages
    assert unknown == {"kard_silver", "undistilled_silver", "teacher_cot", "undistilled_gold", "kard_gold"}
    predictions = answer(experiment, [Cell(row, models["student"], seed=0) for row in rows])
    for cell, found in predictions.items():
        assert [len(samples) for samples in found.texts] == [5] * 4 and len(found.correct) == 4, cell.method
        read = METHODS[cell.method].reads_at_test
        assert all(len(ids) == (settings.retrieval.k if read else 0) for ids in found.passages), cell.method


def test_a_releases_rationales_stay_with_their_questions_and_its_last_ones_are_set_aside(tmp_path: Path) -> None:
    write_release(tmp_path)
    experiment = open_settings(preset("smoke", "obqa", str(tmp_path)), Store(tmp_path / "store"))
    train, splits = build_world(WORLD).splits["train"], experiment.data.splits
    asked = [*splits["train"], *splits["silver"]]
    assert [q.id for q in asked] == [q.id for q in train] and len(splits["silver"]) == 2
    assert experiment.teacher
    expected = [r.text for r in symbolic_teacher(build_world(WORLD), 0.15, seed=0)(train, 3)]
    assert [r.text for r in experiment.teacher(asked, 3)] == expected
