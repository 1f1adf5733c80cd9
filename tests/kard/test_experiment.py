"""What a run begins with: opening it reads the data and makes nothing."""

import pytest

from kardlib.artifacts.store import Store
from kardlib.data.files import DataError, PassageFile
from kardlib.kard.experiment import open_experiment, open_settings
from kardlib.settings import SettingsError, preset


def test_opening_makes_nothing(tmp_path):
    experiment = open_settings(preset("smoke"), Store(tmp_path / "store"))
    assert experiment.world and experiment.teacher and len(experiment.data.splits["test"]) == 24
    assert not (tmp_path / "store").exists()


def test_a_variant_shares_the_dataset_and_has_its_own_settings(experiment):
    one = experiment.at((("retrieval.k", 1),))
    assert one.settings.retrieval.k == 1 and one.data is experiment.data and one.teacher is experiment.teacher
    assert experiment.at((("teacher.flawed", 0.5),)).teacher is not experiment.teacher
    assert experiment.at((("world.seed", 5),)).data.splits != experiment.data.splits
    with pytest.raises(SettingsError, match=r"there is no setting 'retrieval\.kk'"):
        experiment.at((("retrieval.kk", 1),))


def test_a_dataset_of_the_hub_comes_without_rationales(monkeypatch, experiment):
    monkeypatch.setattr("kardlib.kard.experiment.read_hub", lambda name: experiment.data)
    hub = open_settings(preset("smoke", "obqa"))  # without data_dir
    assert hub.teacher is None and list(hub.methods) == [
        "few_shot",
        "undistilled_bm25",
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


def test_the_last_training_questions_of_real_data_are_set_aside(example):
    own = open_settings(preset("smoke", "own", str(example)))
    assert [len(own.data.splits[s]) for s in ("train", "silver", "dev", "test")] == [91, 5, 24, 24]
    assert {m.reads_at_test for m in own.methods.values()} == {"", "bm25_question", "reranker"}


def test_a_dataset_without_the_real_scale_says_which_it_takes(capsys):
    assert open_experiment("real").settings == preset()
    assert "'world' has no settings of the real scale: taking those of the embedded one" in capsys.readouterr().out
