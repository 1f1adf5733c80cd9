"""The explorer: its page holds what was read, written and answered, no text becomes markup, and keys are enough."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kardlib.artifacts.store import Store
from kardlib.data.files import Dataset, Question
from kardlib.data.world import build_world, judge_statements
from kardlib.kard.cases import CAUSES, find_causes
from kardlib.kard.experiment import Cell, Experiment
from kardlib.kard.pipeline import Predictions
from kardlib.kard.prepare import Index, Prepared, Rationales, Runs
from kardlib.kard.teacher import FilterYield
from kardlib.presets import preset
from kardlib.report.explorer import PAGE, collect, make_page, show_explorer, write_explorer
from kardlib.report.page import WAITING, write_index
from tests.browser import Browser

ATTACKS = (
    "</script><script>attacked = 1</script>",
    "<!-- <script>",
    "]]><img src=x onerror='attacked = 1'>",
    "' onload='attacked = 1",
    "\ud800 \x00 \u2028 & &lt; \\u003c",
)
SETTINGS = preset("smoke")
RD, KARD = "reasoning_distillation", "kard_reranker"


class Parts(HTMLParser):
    """The scripts of a page, all its tags, and what frames show."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.scripts, self.frames = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append("")
        if tag == "iframe":
            self.frames.append(dict(attributes))

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "script":
            self.scripts[-1] += data


def read_data(page: str) -> dict:
    return json.loads(Parts(page).scripts[0])


def prepare(experiment: Experiment, passages: dict[str, str]) -> Prepared:
    """Without a search: what is read is given."""
    none = Rationales({}, [], FilterYield(0, 0, 0, 0, 0, 0))
    return Prepared(experiment, none, Runs({}, {}, passages, Index(Path(), ""), "", passages, ""))


WORLD = build_world(SETTINGS.world)
SMALL = prepare(Experiment(SETTINGS, None, WORLD.dataset(), WORLD, None), WORLD.texts)  # nothing is stored
QUESTIONS = WORLD.splits["test"]


@pytest.fixture(scope="module")
def grid():
    """Two methods, students and seeds: RD is right with the larger student alone; KARD answers every third nothing."""
    answered = {}
    for seed in (0, 1):
        for student in ("small", "large"):
            right = [q.answer if student == "large" else (q.answer + 1) % len(q.options) for q in QUESTIONS]
            wrote = [[f"Recalled by {student} with {seed}. The answer is A."] for _ in QUESTIONS]
            answered[Cell(RD, student, seed)] = Predictions(QUESTIONS, [[] for _ in QUESTIONS], wrote, right)
            read = [sorted(WORLD.gold(q)) for q in QUESTIONS]
            wrote = [[f"In short. {SMALL.runs.passages[ids[0]]} The answer is B."] for ids in read]
            given = [None if i % 3 == 0 else q.answer for i, q in enumerate(QUESTIONS)]
            answered[Cell(KARD, student, seed)] = Predictions(QUESTIONS, read, wrote, given)
    return dict.fromkeys(answered, SMALL), answered


# The data


def test_the_page_holds_what_was_read_written_and_answered(grid):
    page = make_page(collect(*grid), SETTINGS)
    data = read_data(page)
    assert page.startswith("<!doctype html>") and "http" not in page  # nothing is fetched
    assert len(data["cells"]) == 8 and len(data["causes"]) == len(CAUSES)
    for (cell, p), told in zip(grid[1].items(), data["cells"], strict=True):
        assert (told["student"], told["seed"], len(told["cases"])) == (cell.student, cell.seed, len(p.questions))
        causes = find_causes(SMALL.experiment, p)
        for i, question in enumerate(p.questions):
            read, wrote, answer, cause = told["cases"][str(i)]
            assert [data["passages"][n][1] for n in read] == [SMALL.runs.passages[id] for id in p.passages[i]]
            assert "".join(data["sentences"][n][0] for n in wrote) == p.texts[i][0]
            assert answer == p.answers[i] and (cause is None if not causes[i] else CAUSES[cause] == causes[i])
            judged = judge_statements(WORLD, p.texts[i][0], p.passages[i])
            signs = [data["sentences"][n][1] for n in wrote]
            assert [sign for sign in signs if sign] == [
                ("✓" if true else "✗") + ("▣" if read else "") for true, read in judged
            ]
            asked = data["questions"][i]
            assert (asked["id"], asked["options"], asked["answer"]) == (
                question.id, [*question.options], question.answer,
            )  # fmt: skip
            assert {data["passages"][n][1] for n in asked["gold"]} == {
                SMALL.runs.passages[id] for id in WORLD.gold(question)
            }
            assert set(asked["about"]) == {"options", "hops", "stratum"}


def test_some_questions_and_changed_settings_are_told(grid):
    (cell, p), *_ = grid[1].items()
    some = {q.id for q in p.questions[3:5]}
    changed = cell._replace(knobs=(("retrieval.k", 1), ("seeds", (0,))))
    data = collect({cell: SMALL, changed: SMALL}, {cell: p, changed: p}, some)
    assert [q["id"] for q in data["questions"]] == [q.id for q in p.questions[3:5]]
    assert [c["method"] for c in data["cells"]] == [
        "Reasoning distillation (RD)", "Reasoning distillation (RD), retrieval.k = 1",
    ]  # fmt: skip


def test_of_real_questions_nothing_is_said_that_nobody_knows(tmp_path):
    question = Question("a", "Why?", ("x", "y"), 0)
    dataset = Dataset("obqa", {"test": [question]}, [], {"a": frozenset({"p"})})
    real = Experiment(preset("smoke", "obqa", str(tmp_path)), Store(tmp_path / "store"), dataset, None, None)
    cell = Cell(KARD, "small", 0)
    predictions = Predictions([question], [["p", "r"]], [["Because. The answer is B."]], [1])
    data = collect({cell: prepare(real, {"p": "evidence", "r": "noise"})}, {cell: predictions})
    assert data["questions"][0]["about"] == {"options": 2} and {signs for _, signs in data["sentences"]} == {""}
    assert data["passages"][data["questions"][0]["gold"][0]] == ("gold", "evidence")
    page = make_page(data, real.settings)
    assert "★ a gold passage" in page and "✓▣ true" not in page and "✓▣ true" in make_page(data, SETTINGS)


def test_the_page_lies_with_the_figures_and_the_index_links_it(grid, tmp_path, monkeypatch):
    data = collect(*grid)
    path = write_explorer(data, SETTINGS, "12_explorer", tmp_path / "run" / "figures")
    written = path.read_bytes()
    assert path.name == "12_explorer.html" and written.decode() == make_page(data, SETTINGS)
    assert write_explorer(data, SETTINGS, "12_explorer", tmp_path / "run" / "figures").read_bytes() == written
    about = {"scale": "smoke", "dataset": "world", "overrides": {}}
    assert 'href="figures/12_explorer.html"' in write_index(tmp_path / "run", [], [WAITING], about).read_text()
    assert "_explorer" not in write_index(tmp_path / "other", [], [WAITING], about).read_text()
    monkeypatch.setattr("kardlib.report.folders.REPOSITORY", tmp_path)
    usual = write_explorer(data, SETTINGS, "12_explorer", None)
    assert usual.resolve() == tmp_path / "runs" / "smoke-world" / "figures" / "12_explorer.html"


# Escaping


def attacked(text: str) -> dict:
    """Every text that somebody may write is this one."""
    first = QUESTIONS[0]
    question = Question(first.id, text, (text, "b", text, "d"), 0, text)
    passage = next(iter(SMALL.runs.passages))
    cell = Cell(RD, text, 0, (("knob", text),))
    data = {cell: Predictions([question], [[passage]], [[text]], [0])}
    return collect({cell: prepare(SMALL.experiment, SMALL.runs.passages | {passage: text})}, data)


@given(st.sampled_from(ATTACKS) | st.text())
def test_no_text_becomes_markup(text):
    data = attacked(text)
    page = make_page(data, SETTINGS)
    parts, plain = Parts(page), Parts(make_page(attacked("plain"), SETTINGS))
    assert parts.tags == plain.tags and parts.scripts[1:] == plain.scripts[1:]
    held = json.loads(parts.scripts[0])
    assert held["questions"][0]["text"] == text and text in held["passages"][held["cells"][0]["cases"]["0"][0][0]]
    (frame,) = Parts(show_explorer(data, SETTINGS).data).frames
    assert frame["srcdoc"] == page and frame["sandbox"] == "allow-scripts"
    page.encode("utf-8")


def test_the_script_makes_text_of_texts():
    script = Parts(PAGE.read_text("utf-8")).scripts[1]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|srcdoc", script)


# In a browser

READY = "document.body.getAttribute('aria-busy') === 'false'"
NAME = "(e => e.title || e.id || e.textContent || e.type)(document.activeElement)"


@pytest.fixture(scope="module")
def page(grid, tmp_path_factory):
    return write_explorer(collect(*grid), SETTINGS, "12_explorer", tmp_path_factory.mktemp("page"))


def choose(browser: Browser, title: str, value: str) -> None:
    """As a person would; the sign that it is busy stands until the page is there."""
    select = f"document.querySelector('[title=\"{title}\"]')"
    change = f"{select}.dispatchEvent(new Event('input', {{ bubbles: true }})), document.body.getAttribute('aria-busy')"
    browser.ask(f"{select}.value = {json.dumps(value)}")
    assert browser.ask(change) == "true"
    browser.wait(READY)


def count(browser: Browser) -> int:
    """Questions in the list; the sentence above it says as many."""
    listed = browser.ask("document.querySelectorAll('#list input').length")
    assert browser.ask("document.getElementById('status').textContent").startswith(f"{listed} of ")
    return listed


def test_questions_are_filtered_by_what_became_of_them(browser, page, grid):
    browser.open(page)
    browser.wait(READY)
    assert count(browser) == len(QUESTIONS)
    kard, rd = "Outcome of KARD (reranker)", "Outcome of Reasoning distillation (RD)"
    choose(browser, kard, "unread")
    assert count(browser) == len(QUESTIONS[::3])
    choose(browser, rd, "right")
    assert count(browser) == 0 and "clear a filter" in browser.ask("document.getElementById('case').textContent")
    choose(browser, "Student", "large")
    assert count(browser) == len(QUESTIONS[::3])
    choose(browser, kard, "unparsable")
    assert count(browser) == len(QUESTIONS[::3])
    choose(browser, kard, "right")
    assert count(browser) == len(QUESTIONS) - len(QUESTIONS[::3])
    two = [i for i, q in enumerate(QUESTIONS) if collect(*grid)["questions"][i]["about"]["hops"] == 2]
    choose(browser, "Hops", "2")
    assert count(browser) == len([i for i in two if i % 3])
    browser.ask("document.querySelector('[type=reset]').click()")
    browser.wait(READY)
    assert count(browser) == len(QUESTIONS)
    choose(browser, "Seed", "1")
    assert "Recalled by small with 1." in browser.ask("document.getElementById('case').textContent")


def test_a_case_shows_the_whole_way(browser, page):
    question = QUESTIONS[1]
    browser.open(page)
    browser.wait(READY)
    browser.ask("document.querySelectorAll('#list input')[1].click()")
    rd, kard = browser.ask("[...document.querySelectorAll('.cards section')].map(card => card.innerText)")
    assert "read nothing" in rd and "✗ wrong" in rd and "what it takes was not read" in rd
    assert "★" in kard and "✓▣" in kard and f"✓ right: {'ABCD'[question.answer]}. " in kard
    assert f"{question.options[question.answer]} (gold)" in browser.ask("document.getElementById('case').innerText")
    mark = "[...document.querySelectorAll('.cards span')].find(span => span.innerText.endsWith('▣'))"
    assert browser.ask(f"getComputedStyle({mark}).backgroundColor") == "rgb(207, 227, 245)"


def test_the_keyboard_is_enough(browser, page):
    browser.open(page)
    browser.wait(READY)
    browser.press("Tab")
    assert browser.ask(NAME) == "words"
    browser.write("RECALLED BY SMALL")
    browser.wait(READY)
    assert count(browser) == len(QUESTIONS)
    browser.write(" and by nobody")
    browser.wait(f"{READY} && !document.querySelector('#list input')")
    browser.ask("document.activeElement.value = ''")
    browser.write(QUESTIONS[4].id)
    browser.wait(f"{READY} && document.querySelectorAll('#list input').length === 1")
    reached = []
    while len(reached) < 20 and "Clear all" not in reached:
        browser.press("Tab")
        reached.append(browser.ask(NAME))
    assert reached[:2] == ["Student", "Seed"] and "Outcome of KARD (reranker)" in reached
    browser.press(" ")
    browser.wait(f"{READY} && document.querySelectorAll('#list input').length > 1")
    browser.press("Tab")
    browser.press("ArrowDown")
    chosen = "document.querySelector('#list :checked').parentNode.innerText"
    assert browser.ask("document.activeElement.type") == "radio"
    at = browser.ask("Number(document.querySelector('#list :checked').value)")
    assert QUESTIONS[at].id in browser.ask(chosen)
    assert browser.ask("document.querySelector('#case h2').textContent") == QUESTIONS[at].id
    browser.press("ArrowDown")
    assert browser.ask("document.querySelector('#case h2').textContent") == QUESTIONS[at + 1].id


def test_every_control_has_a_name_and_nothing_is_wider_than_a_telephone(browser, page):
    browser.open(page, 390, 800)
    browser.wait(READY)
    assert browser.ask("document.documentElement.scrollWidth") <= 390
    named = "e.title || e.textContent.trim() || [...e.labels].some(label => label.textContent.trim())"
    assert browser.ask(f"[...document.querySelectorAll('input, select, button')].filter(e => !({named})).length") == 0


def test_no_text_runs(browser, tmp_path):
    text = " ".join(ATTACKS)
    data = attacked(text)
    browser.open(write_explorer(data, SETTINGS, "12_explorer", tmp_path))
    browser.wait(READY)
    assert browser.ask("typeof attacked") == "undefined" and not browser.ask("document.images.length")
    assert browser.ask("document.querySelector('#case p').textContent") == text
    frame = show_explorer(data, SETTINGS).data
    (tmp_path / "notebook.html").write_text(f"<!doctype html><meta charset=utf-8><body>{frame}", "utf-8")
    browser.open(tmp_path / "notebook.html")
    assert browser.ask("document.querySelectorAll('iframe').length + document.images.length") == 1
