"""What a run begins with: opening it reads the data and makes nothing."""

import gzip
import json
import re
import shutil

import pytest

from kardlib.artifacts.store import Store
from kardlib.data.files import PassageFile
from kardlib.data.records import say
from kardlib.errors import DataError
from kardlib.kard.experiment import describe_run, open_experiment, open_settings
from kardlib.presets import preset
from kardlib.settings import SettingsError


def test_opening_makes_nothing(tmp_path):
    experiment = open_settings(preset("smoke"), Store(tmp_path / "store"))
    assert experiment.world and experiment.teacher and len(experiment.data.splits["test"]) == 24
    assert not (tmp_path / "store").exists()
    assert str(experiment).startswith(describe_run(experiment.settings)) and "kardlib 0" in str(experiment)


def test_a_variant_shares_the_dataset_and_has_its_own_settings(experiment):
    one = experiment.at((("retrieval.k", 1),))
    assert one.settings.retrieval.k == 1 and one.data is experiment.data and one.teacher is experiment.teacher
    assert experiment.at((("teacher.flawed", 0.5),)).teacher is not experiment.teacher
    assert experiment.at((("world.seed", 5),)).data.splits != experiment.data.splits
    with pytest.raises(SettingsError, match=r"there is no setting 'retrieval\.kk'"):
        experiment.at((("retrieval.kk", 1),))


def test_texts_that_are_no_closed_world_are_not_drawn_again(example):
    own = open_experiment("smoke", "own", str(example))
    assert own.at((("retrieval.k", 1),)).data is own.data
    with pytest.raises(SettingsError, match=r"'own' is no closed world that world\.seed could change: take 'world'"):
        own.at((("world.seed", 5),))


def test_every_question_is_of_one_kind_by_its_hops_and_of_one_by_its_options(experiment, example):
    kinds = experiment.kinds()
    for one, other in (("one_hop", "two_hops"), ("yes_no", "options")):
        assert (kinds[f"accuracy_{one}"] ^ kinds[f"accuracy_{other}"]).all()
    assert experiment.chance_row("f", "accuracy_yes_no")["value"] == 0.5
    assert open_experiment("embedded", "own", str(example)).kinds() == {}


def test_a_dataset_of_the_hub_comes_without_rationales(monkeypatch, experiment):
    monkeypatch.setattr("kardlib.kard.experiment.read_hub", lambda name: experiment.data)
    hub = open_settings(preset("smoke", "obqa"))  # without data_dir
    assert hub.teacher is None and list(hub.methods) == [
        "few_shot",
        "undistilled",
        "undistilled_bm25",
        "undistilled_gold",
        "fine_tuning",
        "ka_fine_tuning",
    ]


def test_a_real_dataset_without_a_folder_says_what_to_set():
    with pytest.raises(DataError, match="set data_dir"):
        open_settings(preset("smoke", "unknown"))


def test_your_own_data_are_opened_by_parameters_alone(example):
    own = open_experiment("embedded", "own", str(example))
    assert own.settings.students == ("t5-nano-base",) and isinstance(own.data.passages, PassageFile)
    with pytest.raises(DataError, match=r"set data_dir to the folder that holds questions\.jsonl and passages\.jsonl"):
        open_experiment("embedded", "own")


STRANGE = """id,question,A,B,answer,split
q1,Which enzyme is inhibited by aspirin in platelets?,Cyclooxygenase,Lipoxygenase,A,train
q2,Why does the moon raise two tides a day?,Gravity,Wind,A,test
"""


def test_nano_models_that_cannot_read_the_words_are_said_before_anything_is_trained(example, tmp_path, capsys):
    say.cache_clear()
    open_settings(preset("smoke", "own", str(example)))
    assert "can only spell" not in capsys.readouterr().err  # the closed world's words
    (tmp_path / "questions.csv").write_text(STRANGE)
    open_settings(preset("smoke", "own", str(tmp_path)))
    said = capsys.readouterr().err
    assert re.search(r"t5-nano-small, .*bert-nano can only spell \d\d% of these questions' words: nano models", said)
    assert said.rstrip().endswith("""--set 'students=["smollm2"]' --set reranker.model=minilm""")
    pretrained = {"students": ["google/flan-t5-base"], "reranker.model": "minilm"}
    open_settings(preset("smoke", "own", str(tmp_path)).override(pretrained))
    assert "can only spell" not in capsys.readouterr().err


def test_the_last_training_questions_of_real_data_are_set_aside(example):
    own = open_settings(preset("smoke", "own", str(example)))
    assert [len(own.data.splits[s]) for s in ("train", "silver", "dev", "test")] == [91, 5, 24, 24]
    assert {m.reads_at_test for m in own.methods.values()} == {
        "", "bm25_question", "untrained", "reranker", "gold",
    }  # fmt: skip


def test_a_dataset_without_the_real_scale_says_which_it_takes(capsys):
    assert open_experiment("real").settings == preset()
    assert "'world' has no settings of the real scale: taking those of the embedded one" in capsys.readouterr().out


def test_an_unknown_dataset_names_those_there_are():
    with pytest.raises(
        DataError,
        match=r"there is no dataset 'obqua'; did you mean 'obqa'\? \(without data_dir there are .*obqa, strategyqa",
    ):
        open_settings(preset("smoke", "obqua"))
    with pytest.raises(DataError, match="rte sorts texts into classes, which only notebooks 13 and 18 do: take"):
        open_settings(preset("smoke", "rte"))


def own_rationales(folder, recorded):
    rows = [{"question_id": id, "rationales": texts} for id, texts in recorded.items()]
    (folder / "rationales.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rationales_of_the_test_alone_or_without_words_are_none(example, tmp_path, capsys):
    folder = shutil.copytree(example, tmp_path / "data")
    settings = preset("smoke", "own", str(folder))
    splits = open_settings(settings).data.splits
    for recorded in ({splits["test"][0].id: ["So."]}, {q.id: ["", " "] for q in splits["train"]}):
        say.cache_clear()
        own_rationales(folder, recorded)
        assert open_settings(settings).teacher is None
        assert "no rationale is of a training question, so only answers can be learnt" in capsys.readouterr().err
    (folder / "rationales.jsonl").unlink()
    with gzip.open(folder / "rationales.jsonl.gz", "wt") as file:
        file.write(json.dumps({"question_id": splits["train"][0].id, "rationales": ["So."]}) + "\n")
    assert open_settings(settings).teacher is not None


def test_one_training_question_is_trained_on(example, tmp_path):
    folder = shutil.copytree(example, tmp_path / "data")
    lines = (folder / "questions.jsonl").read_text().splitlines()
    (folder / "questions.jsonl").write_text("\n".join([lines[0], lines[-1]]))
    for file in ("gold.jsonl", "rationales.jsonl"):
        (folder / file).unlink()
    splits = open_settings(preset("smoke", "own", str(folder))).data.splits
    assert [len(splits[split]) for split in ("train", "silver", "test")] == [1, 0, 1]
