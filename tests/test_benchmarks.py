"""The benchmarks run and end in one line of JSON; what they measure is not looked at."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from kardlib.artifacts.device import describe_device
from kardlib.artifacts.store import REPOSITORY
from tests.kard.test_student import save_causal


def run(*command: str) -> dict[str, Any]:
    """The last line that a benchmark prints, and writes into the file after --out."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    line = json.loads(done.stdout.splitlines()[-1])
    assert line == json.loads(Path(command[-1]).read_text())
    return dict(line)


def test_a_small_corpus_is_indexed_and_searched(tmp_path):
    sizes = ["--passages", "2000", "--questions", "50"]
    line = run("benchmarks/index_million.py", *sizes, "--out", str(tmp_path / "line.json"))
    assert (line["passages"], line["questions"], line["cpu"]) == (2000, 50, describe_device())
    assert line["same_ranking"] and line["build_peak_mib"] > 100 and line["search_peak_mib"] > 100


def test_shrunken_models_of_the_paper_are_trained_asked_and_rank(tmp_path):
    models = ["--models", "google/flan-t5-base", "google-t5/t5-large"]
    line = run("benchmarks/paper_scale.py", "--small", *models, "--out", str(tmp_path / "line.json"))
    assert line["small"] and line["provenance"]["device"] == describe_device()
    assert [*line["models"]] == [*models[1:], "google-bert/bert-base-uncased"]
    for measured in line["models"].values():
        for work in measured.values():
            assert {"tokens_a_second", "questions_a_second"} & set(work) and len(work["slowest"]) == 2


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch does not multiply with MKL")
def test_a_student_is_trained_and_asked_with_both_kinds_of_kernels(tmp_path):
    line = run("benchmarks/onednn.py", "--steps", "10", "--questions", "10", "--out", str(tmp_path / "line.json"))
    assert line["provenance"]["device"] == describe_device()
    for kernels in ("torch", "onednn"):
        assert {*line[kernels]} == {"gigaflops", "training_seconds", "writing_seconds", "loss", "peak_mib"}
    assert line["onednn"]["loss"] == pytest.approx(line["torch"]["loss"], rel=0.02)


def test_a_causal_student_has_the_same_losses_from_its_targets_logits_alone(tmp_path):
    folder = str(save_causal(tmp_path / "llama", "llama", max_position_embeddings=2048))
    size = ["--model", folder, "--steps", "10", "--batch", "4"]
    line = run("benchmarks/causal_training.py", *size, "--out", str(tmp_path / "line.json"))
    assert line["target_logits"]["loss"] == pytest.approx(line["all_logits"]["loss"], abs=1e-4)
    assert line["bf16"]["loss"] == pytest.approx(line["all_logits"]["loss"], rel=0.02)
    assert all(line[way]["tokens_a_second"] > 0 and line[way]["peak_mib"] > 100 for way in ("all_logits", "bf16"))


def test_every_kind_of_student_is_trained_at_every_point_of_the_grid(tmp_path, monkeypatch):
    monkeypatch.setenv("KARD_STORE", str(tmp_path / "store"))
    grid = ["--methods", "fine_tuning", "reasoning_distillation", "--rates", "1e-3", "--epochs", "1", "2"]
    student = ["--scale", "smoke", "--students", "t5-nano-small"]
    line = run("benchmarks/fair_students.py", *student, *grid, "--out", str(tmp_path / "line.json"))
    assert [row["student.epochs"] for row in line["rows"]] == [1, 2, 1, 2]
    assert [row["method"] for row in line["chosen"]] == ["fine_tuning", "reasoning_distillation"]
