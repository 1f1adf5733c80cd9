"""The plan counts what the notebooks would do, says what it costs, and does nothing."""

import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from kardlib import REPOSITORY
from kardlib.__main__ import main
from kardlib.artifacts.store import Kind, Store
from kardlib.data.files import Passage, PassageFile, write_passages
from kardlib.data.prompts import teacher_text
from kardlib.kard.experiment import open_settings, write_example
from kardlib.kard.keys import student_spec
from kardlib.kard.lengths import ON_THE_HUB, count_texts
from kardlib.kard.llm import estimate
from kardlib.kard.plan import describe_plan, plan
from kardlib.kard.rankings import train_rerankers
from kardlib.models.catalogue import MODELS
from kardlib.presets import preset
from kardlib.settings import NANO_TRAINING, RunSettings


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_example(tmp_path_factory.mktemp("own"), "smoke"))


def test_what_notebooks_share_is_counted_once(tmp_path: Path) -> None:
    planned = plan(preset(), store=Store(tmp_path))
    # 04: fine-tuning and RD, each with and without passages; 05: three of them at three shares; 07: seven ways for KARD
    # at a quarter of the questions; 10: two corpora, with and without passages; 11: three that training shows other
    # passages; 16: rationales with the answer in their query; 17: three in worlds of two other sizes with one seed, RD
    # and KARD for four numbers of epochs each beside their own; 21: all four of the middle student in two other
    # worlds; all others share them
    made = {number: n["students"] for number, n in planned["notebooks"].items() if n["students"]}
    of_worlds = {"17": 2 * 3 * 3 + 2 * 4, "21": 2 * 4}
    assert made == {"04": 4 * 3 * 3, "05": 3 * 3 * 3, "07": 7 * 3, "10": 4 * 3, "11": 3 * 3, "16": 3} | of_worlds
    students = [w for w in planned["work"] if w["what"] == "train" and w["model"].startswith("t5")]
    assert sum(w["artifacts"] for w in students) == sum(made.values())
    # without fine-tuning or a reranker greedy answers do not depend on the seed: few-shot prompts, the teacher's
    # rationale, and what an undistilled student makes of BM25's and of silver passages
    assert planned["notebooks"]["04"]["predictions"] == 8 * 3 * 3 + 6 * 3
    assert planned["notebooks"]["08"]["predictions"] == 2 * 3 * 3  # without the 100 candidates of 04
    # 16: eleven ways of the released code, of which one only reads the answers otherwise; nine more rerankers, 20: two
    assert planned["notebooks"]["16"]["predictions"] == 10 * 3
    assert [w["artifacts"] for w in planned["work"] if w["model"] == "bert-nano"] == [12 * 3, 2 + 12 * 3]
    # 20: with each seed one passage for a rationale at a time, at most 64 for each of 2,000
    (weighed,) = [w for w in planned["work"] if w["what"] == "weigh"]
    assert (weighed["model"], weighed["artifacts"]) == ("t5-nano-base", 3)
    assert 3 * 2000 * 64 * 10 < weighed["tokens"] < 3 * 2000 * 64 * 200 and weighed["hours"] > 0
    sampled = plan(preset().override({"student.samples": 2}), store=Store(tmp_path))
    assert sampled["notebooks"]["04"]["predictions"] == 14 * 3 * 3


def test_steps_and_tokens_follow_from_questions_and_rationales(tmp_path: Path) -> None:
    settings = preset().override({"seeds": [0], "students": ["t5-nano-base"]})
    (row,) = [w for w in plan(settings, store=Store(tmp_path))["work"] if w["model"] == "t5-nano-base"][:1]
    kinds = [("answer", False), ("answer", True), ("rationale", False), ("rationale", True)]
    ft, ka_ft, rd, kard = (NANO_TRAINING[kind][1] for kind in kinds)
    answers, rationales = 16, 32  # steps of an epoch: 1,000 answers, 2,000 rationales
    by_share = [-(-2 * n // 64) * (rd + kard) + -(-n // 64) * ft for n in (10, 50, 250)]  # 05
    in_07 = [-(-250 * l // 64) for l in (1, 3, 5, 10)] + 3 * [-(-750 // 64)]
    main = answers * (ft + ka_ft) + rationales * (rd + kard)
    in_17 = 2 * [answers * ft + rationales * (rd + kard)]  # of 12 and of 480 ailments
    shown = 2 * (1 + 2 + 5 + 10 + 20)  # epochs of 17
    longer = rationales * (shown - rd - kard)  # what is shown as often as is their own is one with it
    others = sum(in_07) * kard + 2 * rationales * (rd + kard) + rationales * kard + sum(in_17) + longer + 2 * main  # 21
    in_11 = sum(rationales * NANO_TRAINING[kind][1] for kind in NANO_TRAINING if kind not in kinds)
    assert row["steps"] == main + sum(by_share) + in_11 + others
    at = (plan(settings.override({"student.epochs": n}), store=Store(tmp_path))["work"][0] for n in (3, 6, 9))
    one, two, three = at
    longer = rationales * shown  # nobody's own where the settings say how many epochs
    assert two["steps"] - longer > 1.7 * (one["steps"] - longer)  # 07 and 17 have steps of their own
    assert 0 < three["hours"] - two["hours"] == pytest.approx(two["hours"] - one["hours"], rel=0.1)


def test_the_papers_models_and_wikipedia_are_downloaded_and_nothing_else_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYSERINI_CACHE", str(tmp_path))
    planned = plan(preset("paper", "medqa_usmle_hf"), store=Store(tmp_path))
    names = [d["name"] for d in planned["downloads"]]
    assert {"google/flan-t5-xl", "facebook/opt-iml-1.3b", "michiyasunaga/BioLinkBERT-base", "enwiki-paragraphs"} <= {
        *names
    }
    index = planned["downloads"][-1]
    assert index["name"] == "enwiki-paragraphs" and index["bytes"] == 17_725_958_785 and not index["here"]
    students = sum(w["artifacts"] * MODELS[w["model"]].parameters * 4 for w in planned["work"] if w["what"] == "train")
    assert planned["disk"]["made"] == students and planned["disk"]["fetched"] > 2.5 * index["bytes"]
    folder = tmp_path / "indexes" / "lucene-index.enwiki-20180701-paragraphs.77d1cd530579905dad2ee3c2bda1b73d"
    folder.mkdir(parents=True)
    (folder / "segments_1").touch()
    assert plan(preset("paper", "medqa_usmle_hf"), store=Store(tmp_path))["downloads"][-1]["here"]


def test_pubmed_is_counted_and_an_index_of_unknown_size_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYSERINI_CACHE", str(tmp_path))
    known, unknown = (
        plan(preset("paper", "medqa_usmle_hf").override({"knowledge.index": index}), store=Store(tmp_path))
        for index in ("beir-v1.0.0-bioasq.flat", "another-index")
    )
    assert known["downloads"][-1]["bytes"] == 24_821_943_492 and known["disk"]["fetched"] > 2.5 * 24.8e9
    assert "the size of the index another-index is not known and left out" in describe_plan(unknown)


def test_rerankers_that_are_there_are_counted(experiment, prepared) -> None:
    train_rerankers(experiment, {0: (prepared, 0)})
    (row,) = [w for w in plan(experiment.settings, store=experiment.store)["work"] if w["model"] == "bert-nano"][:1]
    assert row["what"] == "train" and 1 <= row["here"] < row["artifacts"]


def test_a_student_of_unknown_shape_is_named_with_the_nearest_that_is_known(tmp_path: Path) -> None:
    planned = plan(preset().override({"students": ["t5-nano-bas"]}), store=Store(tmp_path))
    assert "of t5-nano-bas are not known and left out; did you mean 't5-nano-base'?" in describe_plan(planned)


def test_the_verifier_answers_once_for_every_rationale_and_every_l(tmp_path: Path) -> None:
    settings = preset().override({"teacher.verifier": "t5-nano-base"})
    (row,) = [w for w in plan(settings, store=Store(tmp_path))["work"] if w["what"] == "verify"]
    assert row["model"] == "t5-nano-base" and row["artifacts"] == 5  # l = 2, and notebook 07's 1, 3, 5 and 10
    (large,) = [
        w for w in plan(preset("paper", "obqa").override({"teacher.verifier": "google/flan-t5-xl"}), "a100",
                        Store(tmp_path))["work"] if w["what"] == "verify"
    ]  # fmt: skip
    assert large["hours"] > 0.1 and large["memory"] > 2 * MODELS["google/flan-t5-xl"].parameters


def test_on_glue_the_downloads_are_listed(tmp_path: Path) -> None:
    page = describe_plan(plan(preset("paper", "rte"), store=Store(tmp_path)))
    assert "google-bert/bert-base-uncased" in page and "nyu-mll/glue rte" in page
    assert "on rte only ReAugKD runs, whose trainings are not counted" in page


def test_a_model_that_is_in_the_hubs_cache_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = MODELS["google-t5/t5-base"]
    for folder, file in ((f"snapshots/{model.revision}", "model.safetensors"), ("refs", "main")):
        place = tmp_path / "models--google-t5--t5-base" / folder / file
        place.parent.mkdir(parents=True)
        place.write_text(model.revision)
    downloads = plan(preset("paper", "obqa"), store=Store(tmp_path))["downloads"]
    assert [d["name"] for d in downloads if d["here"]] == ["google-t5/t5-base"]


def test_a_teacher_is_asked_as_often_as_the_notebooks_need_and_costs_what_its_own_estimate_says(own: str) -> None:
    server = {"teacher.base_url": "http://localhost:1/v1", "teacher.model": "m", "teacher.price_out": 2}
    settings = preset("embedded", "own", own).override(server)
    data = open_settings(settings).data
    jobs = [(teacher_text(q), j) for q in data.splits["train"] for j in range(10)]  # notebook 07 goes to ten
    jobs += [(teacher_text(q), j) for q in data.splits["silver"] for j in range(3)]
    expected = estimate(settings.teacher, jobs)
    asked = plan(settings)["teacher"]
    assert asked == {"who": "m", "rationales": 10} | vars(expected) and expected.dollars > 0
    assert f"${expected.dollars:.2f}" in describe_plan(plan(settings))
    assert plan(preset("embedded", "own", own))["teacher"] == {"who": "recorded rationales", "rationales": 10}


def test_the_store_is_asked_for_students_with_the_same_settings(tmp_path: Path) -> None:
    settings, store = preset(), Store(tmp_path)
    knobs = student_spec(settings.student.of("t5-nano-base"), 0)["settings"]
    for text, seed in (("a", 0), ("b", 0), ("c", 7)):
        store.make(Kind("student"), {"examples": text, "settings": knobs, "seed": seed}, lambda folder: None)
    store.make(Kind("student"), {"examples": "a", "settings": knobs | {"lr": 1}, "seed": 0}, lambda folder: None)
    trained = [w for w in plan(settings, store=store)["work"] if w["what"] == "train"]
    assert {w["model"]: w["here"] for w in trained if w["here"]} == {"t5-nano-base": 2}


def test_more_students_are_no_reason_to_look_into_the_store_more_often(tmp_path, monkeypatch) -> None:
    looked, specs = [], Store.specs
    monkeypatch.setattr(Store, "specs", lambda store, kind: looked.append(kind.name) or specs(store, kind))
    monkeypatch.setattr(RunSettings, "override", count_calls(changed := [], RunSettings.override))
    for number in (2, 20):
        students = [f"someone/model-{i}" for i in range(number)]
        planned = plan(preset("smoke").model_copy(update={"students": tuple(students)}), store=Store(tmp_path))
        assert [w["model"] for w in planned["work"] if w["what"] == "write"] == students
        assert looked == ["student", "reranker"]
        looked.clear()
        changed.append("end")
    few, many = changed.index("end"), len(changed) - changed.index("end") - 2
    assert many < 10 * few  # once for a row's settings, whoever is asked, and once for a training


def test_passages_on_the_disk_are_counted_without_being_held(own: str, tmp_path: Path) -> None:
    experiment = open_settings(preset("embedded", "own", own), Store(tmp_path))
    write_passages(tmp_path / "p.jsonl", (Passage(f"p{i}", f"{i} {'long ' * 200}") for i in range(5000)))
    data = replace(experiment.data, passages=PassageFile(tmp_path / "p.jsonl"))
    tracemalloc.start()
    assert count_texts(replace(experiment, data=data)).passages == 5000
    assert tracemalloc.get_traced_memory()[1] < 2e6  # the texts are 5 MB
    tracemalloc.stop()


def count_calls(calls: list, function):
    return lambda *arguments: calls.append(1) or function(*arguments)


@pytest.mark.parametrize(
    "changes, note",
    [
        ({}, "nobody has written rationales, which is counted as if it were done: set teacher.base_url"),
        ({"knowledge.index": None}, "there are no passages: set knowledge.index"),
        ({"student.gradient_checkpointing": False}, "GB to train, more than the 80 GB of one NVIDIA A100 80 GB: lower"),
        ({"student.generation_batch": 500}, "lower student.generation_batch"),
        ({"students": ["someone/new-model"]}, "hours, memory and disk of someone/new-model are not known and left out"),
    ],
)
def test_what_would_stop_the_run_is_said(changes: dict, note: str, tmp_path: Path) -> None:
    settings = preset("paper", "obqa").override(changes)
    assert note in describe_plan(plan(settings, "a100", Store(tmp_path)))


def test_lengths_on_the_hub_are_those_of_the_release() -> None:
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs KARD's release beside the repository")
    for name in ("obqa", "strategyqa"):
        counted = count_texts(open_settings(preset("embedded", name, str(folder))))
        known = ON_THE_HUB[name]
        assert counted[:3] == known[:3]
        assert counted[3:5] == pytest.approx(known[3:5], rel=0.15)


def test_the_command_prints_a_page_or_an_object_and_touches_neither_torch_nor_network() -> None:
    code = (
        "import socket, sys\n"
        "socket.socket.connect = None\n"
        "from kardlib.__main__ import main\n"
        "assert main(sys.argv[1:]) == 0 and 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, "plan", "--scale", "paper", "--dataset", "strategyqa"]
    page = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for words in ("google-t5/t5-3b", "on one NVIDIA A100 80 GB", "together", "requests", "not counted: BM25"):
        assert words in page
    planned = json.loads(subprocess.run([*command, "--json"], cwd=REPOSITORY, capture_output=True, check=True).stdout)
    assert planned["hours"] == pytest.approx(sum(w["hours"] for w in planned["work"]))


def test_mistakes_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["--dataset", "own", "--data-dir", "nowhere"], "there is no questions.jsonl"),
        (["--set", "retrieval.kk=1"], "there is no setting 'retrieval.kk'"),
    ):
        assert main(["plan", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("kard: ") and said in err and err.count("\n") == 1
