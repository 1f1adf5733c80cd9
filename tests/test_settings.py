"""Settings refuse what does not exist or does not fit, in one sentence that names it."""

import pytest

from kardlib.presets import preset
from kardlib.settings import RunSettings, SettingsError


@pytest.mark.parametrize("scale", ["smoke", "embedded", "paper"])
@pytest.mark.parametrize("dataset", ["world", "obqa"])
def test_presets_are_valid(scale, dataset):
    assert preset(scale, dataset).scale == scale


def test_one_knob_changes_and_nothing_else():
    changed = preset().override({"retrieval.k": 2, "seeds": [4]})
    assert changed.retrieval.k == 2 and changed.seeds == (4,)
    assert changed.override({"retrieval.k": preset().retrieval.k, "seeds": preset().seeds}) == preset()


def test_defaults_are_the_papers_where_it_states_them():
    settings = RunSettings()
    assert (settings.knowledge.k1, settings.knowledge.b) == (0.9, 0.4)
    assert settings.retrieval.candidates == 100
    assert (settings.student.lr, settings.student.epochs, settings.student.top_k, settings.student.top_p) == (
        1e-4,
        3,
        50,
        0.95,
    )
    assert (settings.reranker.lr, settings.reranker.epochs, settings.reranker.batch, settings.reranker.warmup) == (
        1e-4,
        3,
        16,
        0.05,
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"retrival.k": 1}, ["retrival.k", "retrieval.k"]),
        ({"retrieval.kk": 1}, ["there is no setting 'retrieval.kk'; did you mean 'retrieval.k'?"]),
        ({"student": {"epoch": 2}}, ["there is no setting 'student.epoch'; did you mean 'student.epochs'?"]),
        ({"students.t5-nano-base": 1}, ["there is no setting 'students.t5-nano-base'"]),
        ({"everything": 1}, ["'everything'; the groups and settings are seeds, students, "]),
        ({"retrieval.k": 101}, ["retrieval.k = 101", "kappa*", "lower k"]),
        ({"reranker.tau_1": -1}, ["reranker.tau_1", "greater than 0"]),
        ({"reranker.tau_2": 0}, ["reranker.tau_2", "greater than 0"]),
        ({"scale": "smoke"}, ["'scale' is no single setting", "--scale"]),
        ({"dataset": "obqa"}, ["'dataset' is no single setting", "--dataset"]),
        ({"data_dir": "x"}, ["'data_dir' is no single setting", "--data-dir", "the parameter data_dir"]),
        ({"seeds": []}, ["seeds"]),
        ({"seeds": [0, 0]}, ["seeds: a value comes twice"]),
        ({"seeds": [0, 2**64]}, ["seeds.1", "less than 4294967296"]),
        ({"seeds": [-1]}, ["seeds.0", "greater than or equal to 0"]),
        ({"world.seed": 2**64}, ["world.seed", "less than 4294967296"]),
        ({"students": ["smollm2", "smollm2"]}, ["students: a value comes twice"]),
        ({"memorization.growth_bits": [-5, 3]}, ["memorization.growth_bits.0", "greater than or equal to 2"]),
        ({"memorization.growth_bits": [8, 8]}, ["memorization.growth_bits: a value comes twice"]),
        ({"memorization.network_strings": [0, 16]}, ["memorization.network_strings.0"]),
        ({"memorization.eps": 1e-300}, ["memorization.eps = 1e-300", "keys of up to 1020 bits", "raise one of them"]),
        ({"student.lr": float("inf")}, ["student.lr", "finite"]),
        ({"reranker.tau_1": float("nan")}, ["reranker.tau_1", "finite"]),
        ({"world.train": 1e11}, ["world.train", "less than or equal to 1048576"]),
        ({"student.batch": 1e9}, ["student.batch", "less than or equal to 65536"]),
        ({"rag.contrastive_batch": 1}, ["rag.contrastive_batch", "greater than or equal to 2"]),
        ({"reranker.model": "t5-nano-small"}, ["reranker.model = t5-nano-small", "begins with bert"]),
        ({"reaugkd.student": "t5-nano-base"}, ["reaugkd.student = t5-nano-base", "begins with bert"]),
        ({"students": ["bert-nano"]}, ["students = bert-nano", "begins with t5"]),
        ({"teacher.verifier": "bert-nano"}, ["teacher.verifier = bert-nano", "begins with t5"]),
        ({"student": 3}, ["student"]),
        ({"student.lr": True}, ["student: lr should be a number, not true"]),
        ({"seeds": [True]}, ["seeds should be a list without true and false"]),
        ({"reaugkd.betas": [0.5, True]}, ["reaugkd: betas should be a list without true and false"]),
        ({"methods": []}, ["methods", "at least 1"]),
        ({"nosuch": {}}, ["there is no setting 'nosuch'"]),
        ({"retrieval": {"x": {}}}, ["there is no setting 'retrieval.x'"]),
        ({"retrieval": {}}, ["retrieval={} changes nothing: name one of its settings"]),
        ({"reaugkd.student_layers": []}, ["reaugkd.student_layers", "at least 1"]),
        ({"student.lr.x": 3}, ["student.lr.x"]),
        ({"student.model": "smollm2"}, ["student.model follows students", 'set students to ["smollm2"]']),
        ({"students": "smollm2"}, ['students: should be a list in brackets, e.g. ["smollm2"]']),
        ({"seeds": 3}, ["seeds: should be a list in brackets, e.g. [3]"]),
    ],
)
def test_what_does_not_fit_is_named_in_one_sentence(changes, words):
    with pytest.raises(SettingsError) as error:
        preset().override(changes)
    message = str(error.value)
    assert all(word in message for word in words) and "\n" not in message and len(message) < 300


@pytest.mark.parametrize("changes", [{"world.seed": 3}, {"world": {"ailments": 30}}])
def test_a_world_that_a_dataset_does_not_have_cannot_be_changed(changes):
    for dataset in ("obqa", "strategyqa", "own", "rte"):
        with pytest.raises(SettingsError, match=f"'{dataset}' is no closed world that world"):
            preset("embedded", dataset, "").override(changes)
    preset().override(changes)


def test_a_group_is_merged_and_what_it_is_not_given_stays():
    usual = preset()
    assert usual.override({"student": {"epochs": 2}}) == usual.override({"student.epochs": 2})
    changed = usual.override({"student": {"epochs": 2, "batch": 8}, "retrieval.k": 1}).student
    assert changed == usual.student.model_copy(update={"epochs": 2, "batch": 8})


@pytest.mark.parametrize(("setting", "gone"), [("temperatures", "falling"), ("passage_gradient", False)])
def test_values_whose_meaning_was_not_the_released_codes_are_gone(setting, gone):
    with pytest.raises(SettingsError, match=f"reranker.{setting}.* should be "):
        preset().override({f"reranker.{setting}": gone})


def test_an_unknown_scale_is_named():
    with pytest.raises(SettingsError, match="scale: Input should be 'smoke'"):
        preset("huge")


def test_a_folder_is_no_nano_model_wherever_it_lies(tmp_path):
    settings = preset("embedded", "own").student
    assert (settings.of(str(tmp_path)).lr, settings.of(str(tmp_path)).max_new_tokens) == (1e-4, None)
    assert settings.of("t5-nano-base").max_new_tokens == 64


def test_answers_are_named_in_the_form_that_a_kind_of_student_learns():
    open_, said = preset("real", "obqa", "somewhere").student, preset("real", "strategyqa", "somewhere").student
    for name in ("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", "artifacts/smollm2-0a1b"):
        assert (open_.of(name).form, said.of(name).form) == ("option", "words")
    assert {open_.of(name).form for name in ("google/flan-t5-base", "t5-nano-base")} == {"letter"}


def test_the_real_scale_has_a_pretrained_student_and_elsewhere_the_embedded_values():
    obqa, strategyqa = (preset("real", name, "somewhere") for name in ("obqa", "strategyqa"))
    assert obqa.students == strategyqa.students == ("smollm2",) and obqa.reranker.model == "minilm"
    assert obqa.student.max_source_tokens < strategyqa.student.max_source_tokens
    assert preset("real", "sst2").reaugkd.teacher == "smollm2" and preset("real", "sst2").reaugkd.student == "minilm"
    assert preset("real", "world") == preset("embedded", "world")


def test_texts_written_in_bfloat16_have_names_of_their_own_and_others_keep_theirs():
    student = preset().student
    assert "bf16" not in student.of_writing() and "generation_batch" not in student.of_writing()
    assert "generation_batch" in student.model_copy(update={"samples": 2}).of_writing()  # what is drawn depends on it
    assert student.model_copy(update={"bf16": True}).of_writing() == student.of_writing() | {"bf16": True}
