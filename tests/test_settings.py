"""Settings refuse what does not exist or does not fit, in one sentence that names it."""

import pytest

from kardlib.settings import RunSettings, SettingsError, preset


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
        ({"retrieval.k": 101}, ["retrieval.k = 101", "kappa*", "lower k"]),
        ({"reranker.tau_1": -1}, ["reranker.tau_1", "greater than 0"]),
        ({"reranker.tau_2": 0}, ["reranker.tau_2", "greater than 0"]),
        ({"scale": "huge"}, ["scale", "smoke"]),
        ({"seeds": []}, ["seeds"]),
        ({"student": 3}, ["student"]),
        ({"student.lr.x": 3}, ["student.lr.x"]),
    ],
)
def test_what_does_not_fit_is_named_in_one_sentence(changes, words):
    with pytest.raises(SettingsError) as error:
        preset().override(changes)
    message = str(error.value)
    assert all(word in message for word in words) and "\n" not in message


@pytest.mark.parametrize(("setting", "gone"), [("temperatures", "falling"), ("passage_gradient", False)])
def test_values_whose_meaning_was_not_the_released_codes_are_gone(setting, gone):
    with pytest.raises(SettingsError, match=f"reranker.{setting}.* should be "):
        preset().override({f"reranker.{setting}": gone})


def test_young_settings_are_named_only_where_they_are_not_the_default():
    assert preset().reranker.unnamed() == {"similarity", "dropout", "rare_terms"}
    assert preset().override({"reranker.similarity": "dot"}).reranker.unnamed() == {"dropout", "rare_terms"}


def test_the_real_scale_has_a_pretrained_student_and_elsewhere_the_embedded_values():
    obqa, strategyqa = (preset("real", name, "somewhere") for name in ("obqa", "strategyqa"))
    assert obqa.students == strategyqa.students == ("smollm2",) and obqa.reranker.model == "minilm"
    assert obqa.student.max_source_tokens < strategyqa.student.max_source_tokens
    assert preset("real", "rte") == preset("embedded", "rte")
