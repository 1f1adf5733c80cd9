"""Case studies: why answers are wrong, how statements are marked, and that no text becomes markup."""

import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kardlib.__main__ import main
from kardlib.artifacts.store import Store
from kardlib.data.answers import parse_answer
from kardlib.data.files import LETTERS, Dataset, Question
from kardlib.data.world import DIAGNOSES, RELATIONS, World, build_world, fill_diagnosis, judge_statements
from kardlib.kard.cases import (
    CAUSES,
    FAILED,
    GOLD_READ,
    MEANING,
    MISSED,
    PAPERS_CAUSES,
    UNPARSABLE,
    as_table,
    case_rows,
    count_outcomes,
    find_causes,
    find_papers_causes,
    has_read_all,
    judge_reading,
    list_answers,
    mark_statements,
    name_readings,
    read_conclusions,
    show_passage,
    show_question,
    show_rankings,
    show_side_by_side,
    show_tokens,
    won_by_reading,
)
from kardlib.kard.experiment import Cell, Experiment
from kardlib.kard.grids import cases as case_grid
from kardlib.kard.pipeline import Predictions
from kardlib.presets import preset
from kardlib.report.drawings.case import PLACES, plot_case
from kardlib.report.drawings.kard import plot_shares
from kardlib.report.evaluate import part_rows, share_rows, summary_rows
from kardlib.report.figures import save_figure
from kardlib.report.papers import draw_again
from kardlib.report.rows import COLUMNS, FigureError, long_form

WORLD = build_world(preset("smoke").world)
ATTACK = "<script>alert('x')</script> & <b onclick=\"go()\">."


@pytest.fixture(scope="module")
def world(experiment) -> World:
    return experiment.world


class Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def two_hop(world: World) -> Question:
    chains = {q: world.chains[q.id] for q in world.splits["test"] if len(q.options) == 4}
    return next(q for q, chain in chains.items() if chain.two_hops)


def hops(world: World, question: Question) -> tuple[list[str], list[str]]:
    """The passages of both hops."""
    chain = world.chains[question.id]
    return world.stating[chain.ailment, "sign"], world.stating[chain.ailment, chain.relation]


def answer(question: Question, read: list[str], answer: int | None, text: str = "") -> Predictions:
    return Predictions([question], [read], [[text]], [answer])


def test_the_option_that_a_rationale_concludes_counts_whatever_letter_follows(world):
    question = two_hop(world)
    chain, wrong = world.chains[question.id], (question.answer + 1) % 4
    states = RELATIONS[chain.relation][2][0].format
    signs, true = fill_diagnosis(DIAGNOSES[0], chain.ailment, chain.signs), states(a=chain.ailment, v=chain.value)
    false, strange = (states(a=chain.ailment, v=v) for v in (question.options[wrong], "Xyz"))
    for text, letter, concluded in (
        (f"{signs} {true} The answer is {LETTERS[wrong]}.", wrong, question.answer),
        (f"{true} {false} The answer is {LETTERS[question.answer]}.", question.answer, wrong),
        (f"{signs} The answer is A.", 0, None),  # the ailment is no option
        (f"{strange} The answer is A.", 0, None),
        ("Nonsense. The answer is A.", 0, None),
        ("The answer is B.", 1, 1),
        ("", None, None),
    ):
        told = read_conclusions(answer(question, [], letter, text))
        assert told.answers == [concluded] and told.texts == [[text]]


# Causes


def test_two_hops_take_a_passage_each_in_any_wording(experiment, world):
    question = two_hop(world)
    signs, relation = hops(world, question)
    other = next(p.id for p in world.passages if p.id not in {*signs, *relation})
    assert len(signs) > 1 and len(relation) > 1
    assert all(has_read_all(experiment, question, [other, s, r]) for s in signs for r in relation)
    assert not has_read_all(experiment, question, [*signs, other])
    assert not has_read_all(experiment, question, relation)
    assert not has_read_all(experiment, question, [])


def test_the_cause_is_the_first_step_that_went_wrong(experiment, world):
    question = two_hop(world)
    signs, relation = hops(world, question)
    complete, lacking = [signs[0], relation[0]], [signs[0]]
    wrong = (question.answer + 1) % len(question.options)
    expected = {
        (True, question.answer): "", (True, wrong): FAILED, (True, None): UNPARSABLE,
        (False, question.answer): "", (False, wrong): MISSED, (False, None): MISSED,
    }  # fmt: skip
    for (read_all, said), cause in expected.items():
        assert find_causes(experiment, answer(question, complete if read_all else lacking, said)) == [cause]
    every = [answer(question, complete if read_all else lacking, said) for read_all, said in expected]
    counted = count_outcomes(experiment, [*every, every[1]])
    assert counted.loc["all it takes"].to_dict() == {"right": 1, "wrong": 2, "none": 1, "all": 4}
    assert counted.loc["less"].to_dict() == {"right": 1, "wrong": 1, "none": 1, "all": 3}


def test_the_papers_cause_is_whether_a_relevant_passage_was_read(experiment, world):
    question = two_hop(world)
    signs, relation = hops(world, question)
    other = next(p.id for p in world.passages if p.id not in {*signs, *relation})
    wrong = (question.answer + 1) % len(question.options)
    missed, failed = PAPERS_CAUSES
    for read, cause in (([other], missed), ([signs[0], other], failed), ([signs[0], relation[0]], failed)):
        assert find_papers_causes(experiment, answer(question, read, wrong)) == [cause]
        assert find_papers_causes(experiment, answer(question, read, question.answer)) == [""]
    assert find_papers_causes(experiment, answer(question, signs, None)) == [failed]


def test_of_real_data_annotators_say_what_is_missed(tmp_path):
    question, unknown = Question("a", "?", ("x", "y"), 0), Question("b", "?", ("x", "y"), 0)
    data = Dataset("obqa", {"test": [question, unknown]}, [], {"a": frozenset({"p", "q"}), "b": frozenset()})
    real = Experiment(preset("smoke", "obqa", str(tmp_path)), Store(tmp_path / "store"), data, None, None)
    assert find_causes(real, answer(question, ["p", "q", "r"], 1)) == [FAILED]
    assert find_causes(real, answer(question, ["p", "r"], 1)) == [MISSED]
    assert find_causes(real, answer(unknown, ["p"], 1)) == [""]  # nobody knows


@pytest.fixture
def annotated(tmp_path) -> Experiment:
    """Three real questions: two of StrategyQA's kind with two gold passages and one, and one that nobody annotated."""
    questions = [Question(id, "?", ("yes", "no"), 0) for id in "abc"]
    data = Dataset("strategyqa", {"test": questions}, [], {"a": frozenset({"p", "q"}), "b": frozenset({"p"})})
    return Experiment(preset("smoke", "strategyqa", str(tmp_path)), Store(tmp_path / "store"), data, None, None)


def test_of_real_questions_all_some_or_none_of_the_gold_was_read(annotated):
    questions, every = annotated.data.splits["test"], [["p", "r", "q"], ["p", "r", "s"], ["r", "s", "t"]]
    read = [Predictions(questions, [passages] * 3, [[""]] * 3, [1, 0, None]) for passages in every]
    assert [name_readings(annotated, p) for p in read] == [
        ["all gold", "all gold", "gold unknown"],
        ["some gold", "all gold", "gold unknown"],
        ["no gold", "no gold", "gold unknown"],
    ]
    assert [find_causes(annotated, p)[0] for p in read] == [FAILED, MISSED, MISSED]
    missed, failed = PAPERS_CAUSES
    assert [find_papers_causes(annotated, p)[0] for p in read] == [failed, failed, missed]  # one of two is relevant
    counts = count_outcomes(annotated, read)
    assert list(counts.index) == [*GOLD_READ, "all"] and counts.index.name == "read"
    assert counts["wrong"].to_dict() == {
        "all gold": 1,
        "some gold": 1,
        "no gold": 1,
        "gold unknown": 0,
        "all": 3,
    }
    assert counts.loc["all gold"].to_dict() == {"none": 0, "right": 2, "wrong": 1, "all": 3}
    assert counts.loc["gold unknown"].to_dict() == {"none": 3, "right": 0, "wrong": 0, "all": 3}


def test_kard_with_bm25_stands_between_where_it_is_asked_for():
    def methods(*asked):
        settings = preset("embedded", "strategyqa", "").override({"methods": asked} if asked else {})
        return [row.method for row in case_grid(settings).rows]

    assert methods() == methods("kard_bm25") == ["reasoning_distillation", "kard_bm25", "kard_reranker"]
    assert methods("reasoning_distillation", "kard_reranker") == ["reasoning_distillation", "kard_reranker"]


def test_shares_are_of_all_failures_over_all_seeds():
    causes = [["", MISSED, FAILED, ""], [MISSED, MISSED, UNPARSABLE, ""]]
    columns = {"figure": "f", "dataset": "d", "scale": "s", "method": "kard_reranker", "student": "t"}
    table = long_form(share_rows(causes, CAUSES, **columns))
    assert list(table.columns) == COLUMNS and (table.n == 5).all()
    assert set(table.metric) == {"share_of_failures"} and set(table.knob) == {"cause"}
    assert dict(zip(table["at"], table.value, strict=True)) == pytest.approx(
        {cause: n / 5 for cause, n in zip(CAUSES, (3, 1, 1), strict=True)}
    )
    assert share_rows([["", ""]], CAUSES, **columns) == []


# Marks


def test_statements_are_marked_as_the_world_says(world):
    question = two_hop(world)
    chain, (signs, _) = world.chains[question.id], hops(world, question)
    false = next(v for v in world.values[chain.relation] if v != chain.value)
    diagnosis = fill_diagnosis(DIAGNOSES[0], chain.ailment, chain.signs)
    states = RELATIONS[chain.relation][2][0].format
    text = f"Step by step. {diagnosis} {states(a=chain.ailment, v=chain.value)} {states(a=chain.ailment, v=false)}"
    marked = mark_statements(world, f"{text} The answer is B.", signs)
    sentences = marked.split("</span>")
    assert [s.rsplit(" ", 1)[1] for s in sentences[:-1]] == ["✓▣", "✓", "✗"]
    assert len({s.split("background:")[1][:7] for s in sentences[:-1]}) == 3  # three colours
    assert "Step by step" in sentences[0].split("<span")[0] and sentences[-1] == " The answer is B."
    assert mark_statements(None, text, []) == text


@given(st.text(), st.integers(0, 5))
def test_marking_keeps_every_character_and_every_judgement(extra, at):
    stating = [p for p in WORLD.passages if WORLD.stated[p.id]]
    written = " ".join(p.text for p in stating[:6])
    text, read = written[: at * 20] + extra + written[at * 20 :], [p.id for p in stating[:3]]
    page = Tags(mark_statements(WORLD, text, read))
    judged = judge_statements(WORLD, text, read)
    assert set(page.tags) <= {"span"} and len(page.tags) == len(judged)
    signs = [" " + ("✓" if true else "✗") + ("▣" if supported else "") for true, supported in judged]
    assert len(page.text.replace("\r", "")) == len(text.replace("\r", "")) + sum(map(len, signs))


# Escaping


def test_no_text_becomes_markup(prepared, world, monkeypatch):
    question = Question("test-00000", f"Who? {ATTACK}", (ATTACK, "b"), 1)
    passage = world.passages[0].id
    monkeypatch.setitem(prepared.runs.passages, passage, ATTACK)
    page = Tags(show_side_by_side(prepared, {ATTACK: answer(question, [passage], 0, ATTACK * 2)}, 0))
    assert set(page.tags) <= {"p", "br", "b", "table", "tr", "th", "td", "ol", "li", "span"}
    assert page.text.count("<script>alert('x')</script>") == 6  # question, option, label, passage, and twice written
    assert "<script" not in mark_statements(None, ATTACK, []) + mark_statements(world, ATTACK, [])


def test_a_gold_passage_bears_a_star_and_what_it_states(prepared, world):
    question = two_hop(world)
    signs, relation = hops(world, question)
    assert show_passage(prepared, question, signs[0]).startswith("<b>★ sign</b> ")
    assert show_passage(prepared, question, relation[0]).startswith(f"<b>★ {world.chains[question.id].relation}</b> ")
    other = next(p.id for p in world.passages if p.id not in {*signs, *relation})
    assert "★" not in show_passage(prepared, question, other)


def test_rankings_stand_side_by_side_however_long_they_are(prepared):
    question = prepared.experiment.data.splits["test"][0]
    found = prepared.runs.by_question[question.id]
    page = Tags(show_rankings(prepared, question, {"<BM25>": found, "two": found[:2], "none": []}, depth=3))
    assert page.tags.count("tr") == 1 + 3 and page.tags.count("td") == 3 * 4
    assert [page.text.count(prepared.runs.passages[p]) for p, _ in found[:3]] == [2, 2, 1]


def test_a_token_stands_below_its_probability():
    page = Tags(show_tokens(["<b>", "Tus", "##bud"], [0.004, 0.5, 1.0]))
    assert page.tags == ["p", *["ruby", "rt"] * 3] and page.text == "<b>0 Tus50 ##bud100"
    assert "0.75" in show_tokens(["a"], [0.0]) and "0.00" in show_tokens(["a"], [1.0])


def test_the_gold_option_is_bold_and_verdicts_are_in_words(prepared, world):
    question = two_hop(world)
    shown = show_question(question)
    assert shown.count("<b>") == 1 and f"{question.options[question.answer]}</b>" in shown
    wrong = (question.answer + 1) % 4
    for said, word in ((question.answer, "right]"), (wrong, "wrong]"), (None, "[no answer]")):
        page = show_side_by_side(prepared, {"RD": answer(question, [], said)}, 0)
        assert word in page and "reads nothing" in page
    assert as_table(("a",), [("1",), ("2",)]).count("<tr>") == 3


def test_one_hop_may_be_told_twice_and_another_not_at_all(experiment, world):
    question = two_hop(world)
    signs, relation = hops(world, question)
    asked = [q.id for q in world.splits["test"] if experiment.data.gold.get(q.id)]
    for read, whole, doubled in ((signs[:2], 0, 1), (signs[:1], 0, 0), ([*signs[:2], relation[0]], 1, 0)):
        judged = judge_reading(experiment, [{id: read if id == question.id else [] for id in asked}])
        assert {metric: [sum(seed) for seed in seeds] for metric, seeds in judged.items()} == {
            "whole_chain": [whole], "doubled_hop": [doubled],
        }  # fmt: skip
        assert judged["doubled_hop"][0][asked.index(question.id)] == doubled


# The figure


def test_failures_are_one_bar_a_student_and_the_papers_beside_them():
    columns = {"figure": "f", "dataset": "d", "scale": "s", "method": "kard_reranker"}
    rows = []
    for student in ("small", "large"):
        for causes in ([MISSED, FAILED, FAILED, UNPARSABLE], ["no relevant passage", *["student failed with one"] * 3]):
            names = CAUSES if MISSED in causes else PAPERS_CAUSES
            rows += share_rows(np.array([causes]), names, student=student, **columns)
    figure = plot_shares(long_form(rows))
    ours, papers = figure.axes
    assert [label.get_text() for label in ours.get_yticklabels()] == ["small (4)", "large (4)"]
    assert [label.get_text() for label in papers.get_yticklabels()] == ["small (4)", "large (4)", "The paper (30)"]
    bars = [
        [bar.get_width() for bar in bars]
        for bars in papers.containers
        if len(bars) == 3 and hasattr(bars[0], "get_width")
    ]
    assert bars == [[0.25, 0.25, 0.5], [0.75, 0.75, 0.5]]
    assert [text.get_text() for text in ours.get_legend().get_texts()] == list(CAUSES)
    with pytest.raises(FigureError, match="nothing to draw"):
        plot_shares(long_form(rows).iloc[:0])


def test_of_real_questions_a_panel_more_shows_what_is_right_by_what_was_read(tmp_path):
    where = {
        "figure": "12_failures",
        "dataset": "strategyqa",
        "scale": "real",
        "student": "s",
        "method": "kard_reranker",
    }
    parts = [["all gold", "some gold", "some gold", "gold unknown"]]
    about = where | {"metric": "accuracy", "knob": "gold read"}
    rows = share_rows([[FAILED, MISSED, "", ""]], CAUSES, **where)
    for method, scores in (("kard_reranker", [[0, 0, 1, 1]]), ("reasoning_distillation", [[1, 0, 0, 1]])):
        rows += part_rows(scores, parts, GOLD_READ, **about | {"method": method})
    table = long_form(rows)
    figure = plot_shares(table)
    *_, panel = figure.axes
    assert len(figure.axes) == 2 and len(plot_shares(table[table["knob"] == "cause"]).axes) == 1
    assert [tick.get_text() for tick in panel.get_yticklabels()] == [
        "all gold (1)",
        "some gold (2)",
        "gold unknown (1)",
    ]
    legend = [text.get_text() for text in panel.get_legend().get_texts()]
    assert legend == ["Reasoning distillation (RD)", "KARD (reranker)"]
    shown = {round(y): [] for line in panel.lines for y in line.get_ydata()}
    for line in panel.lines:
        if line.get_marker() in "sD":
            shown[round(line.get_ydata()[0])].append(line.get_xdata()[0])
    assert shown == {0: [1, 0], 1: [0, 0.5], 2: [1, 1]}
    save_figure(figure, "12_failures_strategyqa", table, tmp_path, {"seed": 0})
    draw_again(tmp_path / "12_failures_strategyqa.csv", tmp_path / "again")
    first, again = (tmp_path / part / "12_failures_strategyqa.pdf" for part in ("", "again"))
    assert first.read_bytes() == again.read_bytes()


def case_of(prepared, world):
    """A question of two hops, and what three methods read and wrote: one is right, by what it read."""
    question = two_hop(world)
    chain, (signs, relation) = world.chains[question.id], hops(world, question)
    other = next(p.id for p in world.passages if p.id not in {*signs, *relation})
    wrong = (question.answer + 1) % 4
    diagnosis = fill_diagnosis(DIAGNOSES[0], chain.ailment, chain.signs)
    says = [
        RELATIONS[chain.relation][2][0].format(a=chain.ailment, v=v) for v in (question.options[wrong], chain.value)
    ]
    return question, {
        Cell("reasoning_distillation", "t", 0): answer(
            question, [], wrong, f"Consider this. {says[0]} The answer is B."
        ),
        Cell("kard_bm25", "t", 0): answer(question, [signs[0], other], None, f"{diagnosis} {says[0]}"),
        Cell("kard_reranker", "t", 0): answer(
            question, [signs[0], relation[0]], question.answer, f"{diagnosis} {says[1]}"
        ),
    }


def test_a_case_is_won_by_reading_where_all_was_read_and_recalling_is_wrong(experiment, prepared, world):
    question, written = case_of(prepared, world)
    recalled, _, read = written.values()
    wrong, (part, whole) = recalled.answers[0], (read.passages[0][:1], read.passages[0])
    for was, is_now, passages, won in (
        (wrong, question.answer, whole, True), (None, question.answer, whole, True), (wrong, wrong, whole, False),
        (question.answer, question.answer, whole, False), (wrong, question.answer, part, False),
        (wrong, None, whole, False), (None, None, whole, False),
    ):  # fmt: skip
        two = answer(question, [], was), answer(question, passages, is_now)
        assert won_by_reading(experiment, *two) == [won]


def test_a_case_is_drawn_as_texts_and_again_from_its_data(prepared, world, tmp_path):
    question, written = case_of(prepared, world)
    where = {"figure": "12_case", "dataset": "world", "scale": "smoke", "method": "kard_reranker", "student": "t"}
    rows = summary_rows([[True, False, False, False]], [0], metric="won_by_reading", **where)
    table = long_form(rows + case_rows(prepared, written, 0, "12_case"))
    figure = plot_case(table)
    said = [text.get_text() for text in figure.axes[0].texts]
    gold = LETTERS[question.answer]
    assert f"{gold}. {question.options[question.answer]} ✓" in said and f"✓ {gold}, right" in said
    assert "✗ no answer" in said and "nothing" in said and any("25.0 % [" in line for line in said)
    signs = [line.split()[0] for line in said if line.split()[0] in MEANING]  # of an answer, then of what is written
    assert signs[:8] == ["✗", "✗", *("✗", "✓▣", "✗"), *("✓", "✓▣", "✓▣")]
    assert sum("★ " in line for line in said) == 3 + 1  # the legend's
    edges = [box.get_linestyle() for box in figure.axes[0].patches]
    assert len(edges) == 5 and len(set(edges)) == 2  # not by colour alone
    save_figure(figure, "12_case", table, tmp_path, {"seed": 0})
    draw_again(tmp_path / "12_case.csv", tmp_path / "again", "one-column")
    for suffix in ("csv", "png", "pdf"):
        assert (tmp_path / "again" / f"12_case.{suffix}").read_bytes() == (tmp_path / f"12_case.{suffix}").read_bytes()


def test_a_case_of_any_texts_fits_on_its_page(prepared, world, monkeypatch):
    _, written = case_of(prepared, world)
    for passage, text in zip(world.passages, (f"costs $5 and $x_1$ {'W' * 200}", "a long word " * 200), strict=False):
        monkeypatch.setitem(prepared.runs.passages, passage.id, text)
    first = next(iter(written))
    written[first] = replace(written[first], passages=[[p.id for p in world.passages[:2]]])
    figure = plot_case(long_form(case_rows(prepared, written, 0, "12_case")))
    figure.canvas.draw()
    (left, bottom, right, top), (width, height) = figure.get_tightbbox().extents, figure.get_size_inches()
    assert left >= 0 and bottom >= 0 and right <= width and top <= height
    reads = [text.get_window_extent() for text in figure.axes[0].texts if text.get_position()[0] == PLACES["reads"][0]]
    assert max(box.x1 for box in reads) < PLACES["writes"][0] / 72 * figure.dpi
    with pytest.raises(FigureError, match="nothing to draw"):
        plot_case(long_form([]))


def test_answers_of_another_world_are_judged_by_its_facts(experiment, monkeypatch):
    cell = Cell("kard_bm25", experiment.student, 0, (("world.seed", experiment.settings.world.seed + 1),))
    there = experiment.at(cell.knobs).world
    questions = there.splits["test"]
    read, wrong = [sorted(there.gold(q)) for q in questions], [(q.answer + 1) % len(q.options) for q in questions]
    predictions = Predictions(questions, read, [[""]] * len(questions), wrong)
    monkeypatch.setattr("kardlib.kard.cases.answer", lambda *_: {cell: predictions})
    table = list_answers(experiment, [cell])
    assert set(table["cause"]) == {FAILED} and table["asked"].tolist() == [q.prompt for q in questions]
    assert set(find_causes(experiment, predictions)) != {FAILED}  # by the facts of the world that was opened first


def test_every_answer_is_a_row_of_the_table_that_the_command_prints(experiment, prepared, capsys, monkeypatch):
    monkeypatch.setenv("KARD_STORE", str(experiment.store.root))
    arguments = ["predictions", "4", "--scale", "smoke"]
    assert main([*arguments, "--method", "undistilled_bm25"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out), keep_default_na=False)
    asked = experiment.data.splits["test"]
    assert table["question"].tolist() == [q.id for q in asked] and set(table["hops"]) == {1, 2}
    assert table["asked"].tolist() == [q.prompt for q in asked] and set(table["method"]) == {"undistilled_bm25"}
    read = [[p for p, _ in prepared.runs.by_question[q.id]][: experiment.settings.retrieval.k] for q in asked]
    assert [row.split() for row in table["read"]] == read
    assert ((table["answer"] == table["gold"]) == table["right"]).all()
    assert set(table["cause"]) <= {"", *CAUSES} and ((table["cause"] == "") == table["right"]).all()
    parsed = [parse_answer(text, q.options) for text, q in zip(table["text"], asked, strict=True)]
    assert ["" if given is None else LETTERS[given] for given in parsed] == table["answer"].tolist()
    assert main([*arguments, "--method", "undistilled_bm25", "--html"]) == 0
    page = Tags(capsys.readouterr().out)
    held = json.loads(page.text[page.text.index('{"about"') : page.text.index('"use strict"')])
    assert [question["id"] for question in held["questions"]] == table["question"].tolist()
    assert [case[2] for case in held["cells"][0]["cases"].values()] == [
        None if not letter else LETTERS.index(letter) for letter in table["answer"][: len(asked)]
    ]
    assert main([*arguments, "--method", "undistiled_bm25"]) == 2
    said = "kard: the grid of notebook 4 has no method 'undistiled_bm25'; did you mean 'undistilled_bm25'? (it has "
    assert capsys.readouterr().err.startswith(said)
