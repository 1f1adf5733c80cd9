"""The methods table is that of the paper, row by row; a user adds rows by the same call."""

import pytest

from kardlib.kard.methods import METHODS, SHOWN, WITHOUT_RATIONALES, Method, main_rows, register_method
from kardlib.registry import REGISTRY, RegistryError
from kardlib.report.drawings.accuracy import plot_main
from kardlib.report.drawings.kard import plot_knob
from kardlib.report.rows import in_order, long_form
from tests.tables import accuracy_row

ROWS = {  # trained on, passages in training, passages at test
    "few_shot": ("", "", ""),
    "few_shot_cot": ("", "", ""),
    "ka_few_shot_cot": ("", "", "bm25_question"),
    "undistilled": ("", "", ""),
    "undistilled_bm25": ("", "", "bm25_question"),
    "undistilled_reranker": ("", "", "reranker"),
    "undistilled_silver": ("", "", "bm25_rationale"),
    "undistilled_gold": ("", "", "gold"),
    "fine_tuning": ("answer", "", ""),
    "ka_fine_tuning": ("answer", "bm25_question", "bm25_question"),
    "ka_fine_tuning_reranker": ("answer", "bm25_question", "reranker"),
    "ka_fine_tuning_shown_silver": ("answer", "bm25_rationale", "reranker"),
    "rag": ("rationale", "rag", "rag"),
    "rag_warm": ("rationale", "rag_warm", "rag_warm"),
    "reasoning_distillation": ("rationale", "", ""),
    "kard_untrained": ("rationale", "bm25_rationale", "untrained"),
    "kard_gold": ("rationale", "bm25_rationale", "gold"),
    "kard_bm25": ("rationale", "bm25_rationale", "bm25_question"),
    "kard_reranker": ("rationale", "bm25_rationale", "reranker"),
    "kard_helpful": ("rationale", "bm25_rationale", "helpful"),
    "kard_helpful_both": ("rationale", "bm25_rationale", "helpful_both"),
    "kard_dense": ("rationale", "bm25_rationale", "dense"),
    "kard_shown_bm25": ("rationale", "bm25_question", "reranker"),
    "kard_shown_reranker": ("rationale", "reranker", "reranker"),
    "kard_silver": ("rationale", "bm25_rationale", "bm25_rationale"),
    "dapt": ("rationale", "", ""),
    "dapt_kard": ("rationale", "bm25_rationale", "reranker"),
    "teacher_cot": ("", "", "rationale"),
}


def test_rows():
    assert {m.id: (m.learns, m.reads_in_training, m.reads_at_test) for m in METHODS.values()} == ROWS


def test_the_kard_rows_share_one_student():
    students = {(m.learns, m.reads_in_training) for m in METHODS.values() if m.learns}
    assert len(students) == 6 + len(SHOWN)


def test_dapt_rows_are_rd_and_kard_from_another_start():
    for adapted, plain in (("dapt", "reasoning_distillation"), ("dapt_kard", "kard_reranker")):
        assert METHODS[adapted].adapted and not METHODS[plain].adapted
        assert ROWS[adapted] == ROWS[plain]


def test_an_undistilled_student_is_asked_as_kard_is():
    for control, kard in (("bm25", "kard_bm25"), ("reranker", "kard_reranker"), ("silver", "kard_silver")):
        method = METHODS[f"undistilled_{control}"]
        assert (method.learns, method.shots, method.writes) == ("", "", METHODS[kard].writes)
        assert method.reads_at_test == METHODS[kard].reads_at_test


def test_what_takes_no_rationale_needs_none():
    names = ["few_shot", "undistilled_bm25", "fine_tuning", "ka_fine_tuning"]
    assert [*main_rows(oracles=True, rationales=False)] == names
    assert [*main_rows(oracles=False, rationales=False)] == ["few_shot", "undistilled", *names[1:]]
    assert "undistilled_silver" not in main_rows(oracles=False, rationales=True)


def test_where_nobody_explained_the_test_questions_gold_passages_are_the_oracle():
    others = {"undistilled", "kard_untrained"}
    assert main_rows(oracles=False, rationales=True).keys() - main_rows(oracles=True, rationales=True).keys() == others
    more = main_rows(oracles=False, rationales=True, gold=True)
    assert more.keys() - main_rows(oracles=False, rationales=True).keys() == {"undistilled_gold", "kard_gold"}


def test_the_main_table_has_the_rows_of_tables_1_and_2_and_controls():
    others = {"rag", "rag_warm", "kard_dense", "dapt", "dapt_kard", "kard_helpful", "kard_helpful_both"}
    others |= {*WITHOUT_RATIONALES, *SHOWN}
    assert set(METHODS) - main_rows(oracles=True, rationales=True).keys() == others


def test_only_the_rows_that_are_wanted_are_run_and_an_unknown_one_is_a_sentence():
    assert [*main_rows(True, True, only=("kard_bm25", "few_shot", "kard_gold"))] == ["few_shot", "kard_bm25"]
    assert [*main_rows(True, True, only=("kard_shown_bm25", "fine_tuning"))] == ["fine_tuning", "kard_shown_bm25"]
    with pytest.raises(RegistryError, match=r"methods: there is no 'kard_bm52'; did you mean 'kard_bm25'"):
        main_rows(True, True, only=["kard_bm52"])


@pytest.fixture
def mine():
    register_method(Method("mine", "My method", "rationale", "bm25_rationale", "bm25_question"))
    yield "mine"
    del METHODS["mine"], REGISTRY["mine"]


def test_a_users_method_is_a_row_of_the_main_table_and_of_every_figure(mine):
    assert [*main_rows(oracles=False, rationales=True)][-1] == mine
    assert mine not in main_rows(oracles=True, rationales=False)
    entry = REGISTRY[mine]
    assert (entry.label, entry.block) == ("My method", "added") and entry.color and entry.marker and entry.line
    rows = [accuracy_row(method=m, value=v, low=0.3, high=0.7) for m, v in ((mine, 0.6), ("kard_bm25", 0.5))]
    figure = plot_main(long_form(rows))
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["KARD (BM25)", "My method"]
    assert figure.axes[0].get_yticks().tolist() == [0, 1.5]  # the block "added" stands apart
    figure = plot_knob(long_form(row | {"knob": "l", "x": 3} for row in rows), "l")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["KARD (BM25)", "My method"]
    assert in_order(long_form(rows))["method"].tolist() == ["kard_bm25", mine]


def test_the_look_and_the_block_can_be_chosen():
    register_method(Method("mine", "My method", "answer"), color="#123456", marker="x", line=":", block="fine-tuned")
    entry = REGISTRY["mine"]
    del METHODS["mine"], REGISTRY["mine"]
    assert (entry.color, entry.marker, entry.line, entry.block) == ("#123456", "x", ":", "fine-tuned")


def test_an_id_that_is_taken_is_one_sentence(mine):
    with pytest.raises(RegistryError, match=r"^there is a method 'mine' already \(My method\): give yours another id$"):
        register_method(Method("mine", "Another"))
    with pytest.raises(RegistryError, match="there is a method 'bm25' already"):
        register_method(Method("bm25", "A student that is called like a retriever"))
    assert METHODS["mine"].label == "My method" and "bm25" not in METHODS


def test_a_method_that_nobody_can_run_is_one_sentence():
    with pytest.raises(RegistryError, match="the method 'mine' cannot be run: reads_at_test is 'bm52', not one"):
        register_method(Method("mine", "My method", "answer", reads_at_test="bm52"))
    with pytest.raises(RegistryError, match="cannot be run: reads_in_training is 'rationale', not one of"):
        register_method(Method("mine", "My method", "answer", "rationale"))
    assert "mine" not in METHODS and "mine" not in REGISTRY
