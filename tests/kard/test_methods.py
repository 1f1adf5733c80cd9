"""The methods table is that of the paper, row by row."""

from kardlib.kard.methods import MAIN_ROWS, METHODS

ROWS = {  # trained on, passages in training, passages at test
    "few_shot": ("", "", ""),
    "few_shot_cot": ("", "", ""),
    "ka_few_shot_cot": ("", "", "bm25_question"),
    "fine_tuning": ("answer", "", ""),
    "ka_fine_tuning": ("answer", "bm25_question", "bm25_question"),
    "rag": ("rationale", "rag", "rag"),
    "rag_warm": ("rationale", "rag_warm", "rag_warm"),
    "reasoning_distillation": ("rationale", "", ""),
    "kard_bm25": ("rationale", "bm25_rationale", "bm25_question"),
    "kard_reranker": ("rationale", "bm25_rationale", "reranker"),
    "kard_dense": ("rationale", "bm25_rationale", "dense"),
    "kard_silver": ("rationale", "bm25_rationale", "bm25_rationale"),
    "dapt": ("rationale", "", ""),
    "dapt_kard": ("rationale", "bm25_rationale", "reranker"),
    "teacher_cot": ("", "", "rationale"),
}


def test_rows():
    assert {m.id: (m.learns, m.reads_in_training, m.reads_at_test) for m in METHODS.values()} == ROWS


def test_the_kard_rows_share_one_student():
    students = {(m.learns, m.reads_in_training) for m in METHODS.values() if m.learns}
    assert len(students) == 6


def test_dapt_rows_are_rd_and_kard_from_another_start():
    for adapted, plain in (("dapt", "reasoning_distillation"), ("dapt_kard", "kard_reranker")):
        assert METHODS[adapted].adapted and not METHODS[plain].adapted
        assert ROWS[adapted] == ROWS[plain]


def test_the_main_table_has_the_rows_of_tables_1_and_2():
    assert set(METHODS) - set(MAIN_ROWS) == {"rag", "rag_warm", "kard_dense", "dapt", "dapt_kard"}
