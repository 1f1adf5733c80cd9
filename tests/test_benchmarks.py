"""The benchmarks run and end in one line of JSON; what they measure is not looked at."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

from kardlib import REPOSITORY
from kardlib.artifacts.device import describe_device
from kardlib.artifacts.store import Kind, Store
from kardlib.data.files import Question
from kardlib.kard.experiment import Cell, open_settings
from kardlib.kard.methods import METHODS, SHOWN
from kardlib.kard.student import load_student
from kardlib.presets import preset
from kardlib.settings import NANO_TRAINING, StudentSettings
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


def test_a_batch_that_texts_leave_writes_what_one_that_is_kept_does(tmp_path, monkeypatch):
    folder = save_causal(tmp_path / "llama", "llama", max_position_embeddings=2048)
    settings = StudentSettings(model=str(folder), max_new_tokens=40)
    sources = [f"Question {i}: which remedy will help? {'It is a cure. ' * i}" for i in range(5)]
    module = load("causal_writing")
    monkeypatch.setattr(module.answering, "_write_on", module.answering._write_on)  # as it was, after the test
    measured = module.measure(sources, settings, 0)
    assert measured["float32"]["same_texts"] == 1 and measured["float32"]["tokens"] > 0
    assert all(seconds > 0 for number in measured.values() for seconds in number["seconds"].values())


def test_examples_that_are_read_once_give_the_same_texts(tmp_path):
    model, tokenizer = load_student(str(save_causal(tmp_path, "llama", max_position_embeddings=512)))
    prompts = [f"{'Which remedy cures fever? It is Balkul. ' * 9}Which remedy cures rash {i}?" for i in range(3)]
    settings = StudentSettings(model="", max_new_tokens=20, max_source_tokens=400)
    times = load("few_shot").compare(model, tokenizer, prompts, settings)
    assert times["ratio"] == pytest.approx(times["read_each_time"] / times["read_once"], abs=0.02)


def test_a_reranker_is_trained_in_both_number_types(tmp_path):
    size = ["--steps", "2", "--batch", "2", "--repeats", "1"]
    line = run("benchmarks/reranker_training.py", *size, "--out", str(tmp_path / "line.json"))
    assert line["bf16"]["loss"] == pytest.approx(line["fp32"]["loss"], rel=0.02) and line["planned_mib"] > 100
    for way in ("fp32", "bf16"):
        assert 0 < line[way]["share_of_limit"] < line[way]["share_with_attention"] and line[way]["peak_mib"] > 100


def test_every_kind_of_student_is_trained_at_every_point_of_the_grid(tmp_path, monkeypatch):
    monkeypatch.setenv("KARD_STORE", str(tmp_path / "store"))
    grid = ["--methods", "fine_tuning", "reasoning_distillation", "--rates", "1e-3", "--epochs", "1", "2"]
    student = ["--scale", "smoke", "--students", "t5-nano-small"]
    line = run("benchmarks/fair_students.py", *student, *grid, "--out", str(tmp_path / "line.json"))
    assert [row["epochs"] for row in line["rows"]] == [1, 2, 1, 2]
    assert [row["method"] for row in line["chosen"]] == ["fine_tuning", "reasoning_distillation"]


def load(name: str) -> Any:
    """A benchmark as a module, whose functions are tested."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_released_codes_way_ranks_writes_and_learns_the_same(tmp_path):
    sizes = ["--questions", "12", "--written", "4", "--asked", "1", "--batch", "2", "--batches", "1", "--steps", "8"]
    line = run("benchmarks/official.py", *sizes, "--out", str(tmp_path / "line.json"))
    assert [*line["parts"]] == ["reranking", "generation", "training"] and line["dataset"] == "world"
    for name, part in line["parts"].items():
        assert part["official_seconds"] > 0 and part["aim"] > 1 and "Python" in part["slowest"][-1], name
        if name != "training":  # the difference of two short trainings, whose sign a busy machine may change
            assert part["library_seconds"] > 0 and 0 < part["limit_share"] < 2, name


def test_bm25_has_pyserinis_ranking_and_its_steps_are_timed(tmp_path):
    sizes = ["--questions", "20", "--passes", "2", "--passages", "500"]
    line = run("benchmarks/bm25.py", *sizes, "--out", str(tmp_path / "line.json"))
    way = line["ways"]["world"]
    assert way["questions"] == 20 and way["ratio"] > 0 and way["aim"] > 1 and min(way["seconds"].values()) > 0
    assert {"pyserini", "loop", "batches"} < {*way["seconds"]} and line["sizes"][0]["library"]["index_seconds"] > 0
    assert not way["bm25s"] or way["bm25s"]["own_tokens"]["other_first_10"] < 0.5


def test_curves_measured_anew_stand_beside_the_others_of_their_file(tmp_path):
    old, file = [{"axis": "students", "work": work, "mib": [1]} for work in ("plan", "figure")], tmp_path / "line.json"
    file.write_text(json.dumps({"provenance": {"commit": "a"}, "curves": old}))
    line = {"provenance": {"commit": "b"}, "curves": [old[0] | {"mib": [2]}]}
    merged = load("growth").add_curves(file, line)
    assert merged["curves"] == [{**old[0], "mib": [2], "provenance": {"commit": "b"}}, old[1]]
    assert merged["provenance"] == {"commit": "a"}


def test_what_grows_is_measured_in_processes_of_their_own(tmp_path):
    curves = ["questions: run table, written and read", "passages: own data, read", "students: tables and claims"]
    line = run("benchmarks/growth.py", "--share", "0.01", "--only", *curves, "--out", str(tmp_path / "line.json"))
    assert [f"{curve['axis']}: {curve['work']}" for curve in line["curves"]] == curves
    for curve in line["curves"]:
        assert len(curve["sizes"]) == len(curve["seconds"]) == len(curve["mib"]) and min(curve["seconds"]) > 0


def test_an_exponent_is_the_slope_of_the_upper_half(tmp_path):
    growth, page, sizes = load("growth"), load("speed_page"), [10, 20, 40, 80]
    assert growth.exponent(sizes, [3.0 * size for size in sizes]) == 1
    assert growth.exponent(sizes, [7, 7, 2.0 * 40**2, 2.0 * 80**2]) == 2  # what is small says little
    assert growth.exponent(sizes, [1.0, 2.0, 4.0, 8.0], least=8) is None and growth.exponent([10], [1.0]) is None
    curve = {"axis": "students", "work": "plan", "sizes": sizes, "seconds": [1, 2, 4, 8.5], "mib": [0, 0, 0, 0]}
    curve |= {"seconds_exponent": 1.09, "mib_exponent": None}
    assert page.growth_row(curve) == ["students", "plan", "10 to 80", "8.5", "1.09", "0", "flat"]
    drawn = [tmp_path / name for name in ("once.svg", "again.svg")]
    for path in drawn:
        page.save_growth([curve], path)
    assert drawn[0].read_bytes() == drawn[1].read_bytes()


def test_ways_with_other_results_end_the_run():
    official = load("official")
    ranked = [("a", 3.0), ("b", 2.0), ("c", 1.99995)]
    assert official.same_ranking(ranked, [("a", 3.0), ("c", 2.0), ("b", 1.9999)])  # as good as equal
    assert not official.same_ranking(ranked, [("b", 3.0), ("a", 2.0), ("c", 1.99995)])
    assert not official.same_ranking(ranked, ranked[:2])
    with pytest.raises(SystemExit, match="do not give the same greedy texts"):
        official.check(False, "greedy texts")


def test_peers_that_are_not_installed_are_left_out_with_the_reason(tmp_path):
    sizes = ["--questions", "12", "--written", "3", "--peers", "bm25s", "generate in batches"]
    line = run("benchmarks/peers.py", *sizes, "--out", str(tmp_path / "line.json"))
    assert line["peers"]["generate in batches"]["agreement"] == {"same_texts": 1.0}
    assert line["peers"]["generate in batches"]["library_mib"] > 100
    bm25s = line["peers"]["bm25s"]
    installed = importlib.util.find_spec("bm25s") is not None
    assert bm25s["agreement"]["shared_in_first_10"] > 0.3 if installed else "pip install bm25s" in bm25s["skipped"]


def test_what_two_notebooks_need_is_counted_for_the_first(tmp_path):
    store, kind = Store(tmp_path / "store"), Kind("student")
    names = [
        store.make(kind, {"n": n}, lambda folder: (folder / "x").touch(), made={"seconds": n}).name for n in (2, 5)
    ]
    for number, needed in (("01_a", names[:1]), ("02_b", names)):
        nbformat.write(nbformat.v4.new_notebook(metadata={"kard": {"artifacts": needed}}), tmp_path / f"{number}.ipynb")
    command = ("benchmarks/suite_costs.py", str(tmp_path), "--store", str(tmp_path / "store"))
    line = run(*command, "--out", str(tmp_path / "line.json"))
    assert line["notebooks"] == {"01_a": {"student": [1, 2]}, "02_b": {"student": [1, 5]}}
    assert [*load("speed_page").cost_rows(line["notebooks"])][-1] == ["all", "7", "2 student 7"]


def test_the_page_on_speed_shows_the_results_that_are_there(tmp_path):
    page, speed = (REPOSITORY / "docs" / "speed.md").read_text("utf-8"), load("speed_page")
    shown = page.split(speed.BEGIN)[1].split(speed.END)[0]
    assert shown.strip("\n") == "\n".join(speed.show(REPOSITORY / "benchmarks" / "results")).strip("\n")
    copy = tmp_path / "speed.md"
    copy.write_text(f"before\n{speed.BEGIN}\nolder\n{speed.END}\nafter\n")
    speed.refresh(copy, REPOSITORY / "benchmarks" / "results")
    assert "older" not in copy.read_text() and copy.read_text().endswith(f"{speed.END}\nafter\n")


def test_a_student_that_names_options_by_their_words_is_compared_with_options_alone(tmp_path):
    experiment = open_settings(preset("smoke"), Store(tmp_path))
    cell = Cell("fine_tuning", "t5-nano-small", 0, (("student.target", "option"), ("student.steps", 40)))
    row = load("answer_form").measure(experiment, cell)
    assert (row["method"], row["form"]) == ("fine_tuning", "option") and row["unread"] < 50
    assert row["gain"][0] == pytest.approx(row["likeliest"][0] - row["options alone"][0], abs=0.11)
    assert all(low <= value <= high for value, low, high in (row["right"], row["likeliest"], row["gain"]))


def test_what_writing_and_what_the_passages_of_training_add_are_told_apart(tmp_path):
    few = ["--scale", "smoke", "--student", "t5-nano-small", "--worlds", "3", "4", "--epochs", "2", "--rates", "3e-3"]
    line = run("benchmarks/writing_or_passages.py", *few, "--out", str(tmp_path / "line.json"))
    mean = {(row["method"], row["part"]): row["mean"][0] for row in line["rows"]}
    students = load("writing_or_passages").STUDENTS
    assert {(row["lr"], row["epochs"]) for row in line["chosen"]} == {(3e-3, 2)}
    assert mean["named_by_reranker", "accuracy_one_hop"] > mean["named_by_reranker", "accuracy_two_hops"]
    for effect, (more, less) in load("writing_or_passages").EFFECTS.items():
        for part in ("accuracy", *(f"accuracy_{p}" for p in ("one_hop", "two_hops", "often", "seldom", "never"))):
            [points] = [e["points"] for e in line["effects"] if (e["effect"], e["part"]) == (effect, part)]
            assert points[0] == pytest.approx(mean[students[more], part] - mean[students[less], part])


def test_a_likelihood_that_knows_only_length_takes_the_longest_option():
    """Three nats to begin an option, a tenth for each character: so one copies what stands in the prompt."""
    questions = [Question(str(i), "?", ("fir", "a tall oak", "elm"), answer) for i, answer in enumerate((1, 0, 1, 2))]
    scores = [[-3 - len(option) / 10 for option in q.options] for q in questions]
    rows = load("option_length").judge(questions, {"question": scores, "options alone": scores})
    taken = {(row["asked"], row["reading"]): row["takes a longest option"] for row in rows}
    assert taken["question", "per character"] == 1 and taken["question", "in all"] == 0
    assert {row["right"] for row in rows if row["reading"] == "per character"} == {0.5}


def test_how_nano_students_are_trained_is_what_the_development_world_chose():
    fair, rows = load("fair_students"), []
    for name, form in (("fair_students", "letter"), ("fair_students_option", "option")):
        measured = json.loads((REPOSITORY / "benchmarks" / "results" / f"{name}.json").read_text())["rows"]
        rows += [row | {"form": form} for row in measured]
    for name in fair.KINDS[:4]:  # RAG's epochs stand in its preset
        method, tried = METHODS[name], [row for row in rows if row["method"] == name]
        best = fair.choose(tried, 600)
        assert len(tried) == 12
        taught = NANO_TRAINING[method.learns, bool(method.reads_in_training)]
        assert (best["lr"], best["epochs"], best["form"]) == taught
    told = json.loads((REPOSITORY / "benchmarks" / "results" / "writing_or_passages.json").read_text())["chosen"]
    for row in told:
        method, best = METHODS[row["method"]], fair.choose(row["tried"], 600)
        assert len(row["tried"]) == 6
        assert (best["lr"], best["epochs"]) == NANO_TRAINING[method.learns, method.reads_in_training][:2]
    assert [row["method"] for row in told] == [*SHOWN]
