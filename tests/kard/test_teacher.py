"""Teachers and the filter."""

import pytest

from kardlib.data.files import Question
from kardlib.data.records import say
from kardlib.data.world import build_world, judge_statements
from kardlib.errors import DataError
from kardlib.kard.teacher import keep_correct, recorded_teacher, symbolic_teacher
from kardlib.settings import WorldSettings

WORLD = build_world(WorldSettings(ailments=24, cases=0, notes=0, train=300, dev=1, test=1, seed=5))
QUESTIONS = WORLD.splits["train"]


def test_ten_rationales_of_a_question_are_ten_different_texts():
    for flawed in (0.0, 0.3):
        written = symbolic_teacher(WORLD, flawed, seed=0)(QUESTIONS, 10)
        assert len(written) == len({(r.question_id, r.text) for r in written}) == 10 * len(QUESTIONS)
        assert [r.number for r in written[:10]] == list(range(10))


def test_more_than_ten_are_refused():  # some questions have no more than twelve, and searching would not end
    with pytest.raises(
        DataError, match=r"up to 10 different rationales .*, 11 were asked for: lower teacher\.rational"
    ):
        symbolic_teacher(WORLD, 0.0, seed=0)(QUESTIONS, 11)


def test_a_teacher_without_flaws_is_right_in_every_statement():
    written = symbolic_teacher(WORLD, 0.0, seed=0)(QUESTIONS, 3)
    gold = {q.id: q.answer for q in QUESTIONS}
    assert all(r.answer == gold[r.question_id] for r in written)
    assert all(true for r in written for true, _ in judge_statements(WORLD, r.text, []))


def test_the_share_of_flawed_rationales_is_as_set():
    written = symbolic_teacher(WORLD, 0.3, seed=0)(QUESTIONS, 3)
    flawed = [not all(true for true, _ in judge_statements(WORLD, r.text, [])) for r in written]
    assert sum(flawed) / len(flawed) == pytest.approx(0.3, abs=0.06)


def test_fewer_rationales_are_the_first_of_more():
    teacher = symbolic_teacher(WORLD, 0.3, seed=0)
    few, many = teacher(QUESTIONS[:20], 3), teacher(QUESTIONS[:20], 10)
    assert few == [r for r in many if r.number < 3]


def test_the_filter_drops_wrong_conclusions_only_and_counts_them():
    written = symbolic_teacher(WORLD, 0.3, seed=0)(QUESTIONS, 3)
    kept, counts = keep_correct(written, QUESTIONS)
    gold = {q.id: q.answer for q in QUESTIONS}
    assert all(r.answer == gold[r.question_id] for r in kept)
    assert counts.kept == len(kept) and counts.written == len(written) == counts.kept + counts.wrong
    assert counts.wrong == sum(r.answer != gold[r.question_id] for r in written) > 0


def test_a_verifier_must_pick_the_gold_option():
    question = Question("q", "Is it so?", ("yes", "no"), 0)
    written = recorded_teacher({"q": ["It is.", "The answer is (A).", "The answer is (B).", "Who knows?"]})(
        [question], 4
    )
    kept, counts = keep_correct(written, [question], picked=[0, 1, 0, None])
    assert [r.number for r in kept] == [0, 2]
    assert (counts.written, counts.kept, counts.wrong, counts.silent, counts.questions_left) == (4, 2, 2, 0, 1)


def test_recorded_rationales_are_read_for_their_conclusion():
    question = Question("q", "Is it so?", ("yes", "no"), 0)
    teacher = recorded_teacher(
        {"q": ["It is. Therefore, the answer is (A) yes.", "Nobody knows.", "So the answer is (B) no."]}
    )
    written = teacher([question], 3)
    assert [r.answer for r in written] == [0, None, 1]
    kept, counts = keep_correct(written, [question])
    assert [r.number for r in kept] == [0, 1]
    assert (counts.correct, counts.silent, counts.wrong, counts.questions_left) == (1, 1, 1, 1)


def test_too_few_recorded_rationales_are_named():
    questions = [Question(id, "Is it so?", ("yes", "no"), 0) for id in "qrs"]
    with pytest.raises(DataError, match=r"'q' has 1 recorded rationales, 3 were asked for, and no other .*: lower tea"):
        recorded_teacher({"q": ["only one"], "r": ["one", "two"]})(questions, 3)


def test_where_some_questions_have_fewer_rationales_it_is_said_and_those_are_read(capsys):
    say.cache_clear()
    questions = [Question(id, "Is it so?", ("yes", "no"), 0) for id in "qrs"]
    written = recorded_teacher({"q": ["only one"], "r": ["one", "two"]})(questions, 2)
    assert [r.id for r in written] == ["q/0", "r/0", "r/1"]
    assert capsys.readouterr().err.startswith("2 of 3 questions have fewer than 2 recorded rationales")
