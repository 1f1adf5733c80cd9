"""One small grid through a real reranker and real students."""

import json
import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from kardlib import NANO
from kardlib.artifacts.launch import LaunchError
from kardlib.data.files import Question
from kardlib.data.records import read_losses, say
from kardlib.errors import DataError, KardError
from kardlib.kard import pipeline
from kardlib.kard.cases import statement_shares
from kardlib.kard.experiment import Cell, open_settings, writing_job
from kardlib.kard.keys import prediction_key, student_key
from kardlib.kard.methods import METHODS, READS, Method, register_method
from kardlib.kard.pipeline import (
    Predictions,
    Row,
    _rag_job,
    answer,
    describe_training,
    few_shots,
    list_writings,
    outcomes,
    prepare_all,
    source_texts,
    student_job,
    train_students,
    training_examples,
    weigh_options,
)
from kardlib.kard.prepare import find_silver, prepare
from kardlib.kard.rankings import (
    RETRIEVERS,
    Reading,
    draw_encoder,
    from_candidates,
    from_texts,
    rank,
    read_passages,
    register_reranker,
    register_retriever,
    search_dense,
    time_ranking,
    train_rerankers,
)
from kardlib.kard.student import load_student
from kardlib.models import catalogue
from kardlib.models.catalogue import LOADERS, register_student
from kardlib.registry import REGISTRY

RD = "reasoning_distillation"


@pytest.fixture(scope="module")
def student(experiment) -> str:
    return experiment.settings.students[0]


def times_made(experiment):
    return {p: p.stat().st_mtime_ns for p in experiment.store.root.glob("*/artifact.json")}


def test_what_a_method_reads_is_what_its_row_says(prepared, student):
    rationales, runs = prepared.rationales, prepared.runs
    rd, kard, ft, ka_ft = (Cell(m, student, 0) for m in (RD, "kard_bm25", "fine_tuning", "ka_fine_tuning"))
    for cell in (rd, kard):
        examples = training_examples(prepared, cell)
        assert len(examples) == len(rationales.kept)
        for rationale, (source, _) in zip(rationales.kept, examples, strict=True):
            finds = bool(cell is kard and runs.by_rationale[rationale.id])
            assert ("Passage:" in source) == finds
    first = rationales.kept[0]
    assert runs.by_rationale[first.id]
    k = prepared.experiment.settings.retrieval.k
    passages = [runs.passages[p] for p, _ in runs.by_rationale[first.id][:k]]
    assert all(p in training_examples(prepared, kard)[0][0] for p in passages)
    answers = training_examples(prepared, ft)
    assert len(answers) == rationales.counts.questions_left
    assert all(target.startswith("The answer is") for _, target in answers)
    asked = training_examples(prepared, ka_ft)[0][0]
    assert all(runs.passages[p] in asked for p, _ in runs.by_question[first.question_id][:k])


def test_the_teachers_words_stand_in_the_oracles_source_only(experiment, prepared):
    question = experiment.data.splits["test"][0]
    words = next(r.text for r in prepared.rationales.written["test"] if r.question_id == question.id)
    nothing = {q.id: [] for q in experiment.data.splits["test"]}
    for name in experiment.methods:
        asked = source_texts(prepared, Cell(name, experiment.student, 0), "test", nothing)
        assert (words in asked[0]) == (name == "teacher_cot")


def test_a_grid_shares_students_and_is_not_made_twice(experiment, student):
    cells = [Cell(m, student, 0) for m in ("kard_bm25", "kard_silver", RD)]
    first = answer(experiment, cells)
    made = times_made(experiment)
    students = train_students(experiment, prepare_all(experiment, cells))
    bm25, silver, rd = (students[cell] for cell in cells)
    assert bm25 == silver != rd  # the two KARD rows are one student
    again = answer(open_settings(experiment.settings, experiment.store), cells)
    assert again == first and times_made(experiment) == made
    for predictions in first.values():
        assert len(predictions.correct) == len(experiment.data.splits["test"])
        true, supported = statement_shares(experiment.world, predictions)
        assert all(0 <= s <= 1 for s in (*true, *supported))
    assert not any(statement_shares(experiment.world, first[cells[2]])[1])  # RD reads nothing: nothing is supported
    (right,) = outcomes(experiment, [Row(RD, student)])[Row(RD, student)]
    assert right.tolist() == first[cells[2]].correct


def test_students_that_read_the_same_share_what_they_are_asked(experiment, prepared):
    names = [f"someone/model-{i}" for i in range(5)]
    cells = [Cell(m, name, seed) for m in ("kard_bm25", "undistilled_bm25") for name in names for seed in (0, 1)]
    asked = dict.fromkeys(cells, prepared)
    read = read_passages(Reading(experiment, "test", asked, {}))
    works = list(list_writings("test", asked, {}, read).values())
    assert len(works) == 5 * 2 + 5  # an undistilled student's greedy texts do not depend on the seed
    assert len({id(sources) for sources, _, _ in works}) == 2
    assert works[0][0] == source_texts(prepared, cells[0], "test", read[cells[0]])


def test_who_only_a_prompt_shows_rationales_may_write_as_much_as_the_teacher(experiment, prepared):
    kept = [replace(r, text="word " * 200) for r in prepared.rationales.kept]
    wordy = replace(prepared, rationales=replace(prepared.rationales, kept=kept))
    cells = [Cell(m, "someone/model", 0, (("student.max_new_tokens", None),)) for m in ("few_shot", "few_shot_cot")]
    asked = {cell: replace(wordy, experiment=experiment.at(cell.knobs)) for cell in cells}
    read = read_passages(Reading(experiment, "test", asked, {}))
    limits = [settings.max_new_tokens for _, settings, _ in list_writings("test", asked, {}, read).values()]
    assert sorted(limits, key=bool) == [None, len("word " * 200) // 3]


@pytest.mark.parametrize("method", ["few_shot", "few_shot_cot", "ka_few_shot_cot"])
def test_a_prompts_examples_read_as_many_passages_as_what_is_asked(method, prepared, student):
    settings, runs = prepared.experiment.settings, prepared.runs
    k = settings.retrieval.k if method.startswith("ka_") else 0
    read = {q.id: [p for p, _ in runs.by_question[q.id][:k]] for q in prepared.experiment.data.splits["test"]}
    turns = source_texts(prepared, Cell(method, student, 0), "test", read)[0]
    assert [turn.count("Passage: ") for turn in turns] == [k, 0] * 3 + [k]


def test_another_prompt_and_another_reading_of_answers_do_what_they_say(experiment, prepared, student):
    cell, first = Cell("kard_bm25", student, 0), prepare(experiment, (("test_prompt", "passages_first"),))
    test = experiment.data.splits["test"]
    read = {q.id: [p for p, _ in prepared.runs.by_question[q.id][:2]] for q in test}
    usual, other = (source_texts(p, cell, "test", read)[0] for p in (prepared, first))
    asked = f"Question: {test[0].prompt}"
    assert usual.startswith(asked) and other.startswith("Passage: ") and other.endswith(asked)
    assert training_examples(first, cell) == training_examples(prepared, cell)
    data = replace(experiment.data, splits={"test": [Question("q", "Which?", ("x", "y"), 1)]})
    for how, answer_read in (("parsed", 0), ("last_letter", 1)):
        one = replace(prepared, experiment=replace(experiment.at((("answer", how),)), data=data))
        assert pipeline._parse(one, cell, "test", {"q": []}, [["The answer is A. See B."]]).answers == [answer_read]


def test_silver_passages_and_the_oracle_are_of_the_first_rationales(experiment, student):
    more = prepare(experiment, (("teacher.rationales", 5),))
    for split in ("train", "test"):
        assert find_silver(more, split) == {
            q.id: {p for j in range(3) for p, _ in more.runs.by_rationale[f"{q.id}/{j}"][:3]}
            for q in experiment.data.splits[split]
        }
    cells = [Cell(m, student, 0) for m in ("kard_silver", "undistilled_silver", "kard_bm25")]
    silver, other, bm25 = read_passages(Reading(experiment, "test", dict.fromkeys(cells, more), {})).values()
    k = experiment.settings.retrieval.k
    assert silver == other == {q: [p for p, _ in more.runs.by_rationale[f"{q}/0"][:k]] for q in silver} != bm25


def test_an_answer_that_is_not_read_is_marked_in_the_scores():
    asked = [Question("q", "Why?", ("a", "b"), 1)] * 3
    made = Predictions(asked, [[]] * 3, [["?"]] * 3, [1, 0, None])
    assert made.scores == made.correct == [True, False, False]
    assert list(np.signbit(made.scores)) == [False, False, True]


def test_options_named_by_their_words_are_read_so(experiment, prepared):
    cell = Cell("fine_tuning", "smollm2", 0)
    asked = [Question("q", "Which?", ("O", "A", "B"), 1)]
    data = replace(prepared.experiment.data, splits={"test": asked})
    alone = replace(prepared, experiment=replace(prepared.experiment, data=data))
    others = cell._replace(student="t5-nano-base"), cell._replace(method="undistilled")  # the last is shown no answers
    for one, read in ((cell, 1), *((other, 0) for other in others)):
        assert pipeline._parse(alone, one, "test", {"q": []}, [["The answer is A."]]).answers == [read]


def test_a_student_as_it_comes_is_another_one_in_another_revision(experiment):
    cell = Cell("undistilled", "someone/model", 0)
    keys = {prediction_key(experiment.settings.override({"student.revision": name}), cell) for name in ("one", "two")}
    assert len(keys) == 2


def test_a_loss_that_did_not_fall_is_said_whenever_the_student_is_taken(
    experiment, prepared, student, tmp_path, capsys
):
    say.cache_clear()

    def make(store, kind, jobs, *_):  # what is in the store
        return dict.fromkeys(jobs, tmp_path)

    for ends, said in (
        ((2.0, 1.0), ""),
        ((1.0, 2.0), f"{tmp_path.name}: the loss did not fall (1.000 at first, 2.00"),
    ):
        losses = [{"step": step, "loss": loss} for step, loss in zip((10, 20), ends, strict=True)]
        (tmp_path / "losses.json").write_text(json.dumps(losses))
        train_students(experiment, {Cell(RD, student, 0): prepared}, make)
        assert capsys.readouterr().err.partition("0 at last")[0] == said


def test_the_training_that_is_told_is_the_one_that_happens(experiment, student):
    steps, epochs = (("student.steps", 10),), (("student.epochs", 2), ("student.batch", 10))
    cells = [Cell(RD, student, 0, steps), Cell("fine_tuning", student, 0, epochs), Cell("few_shot", student, 0)]
    asked = prepare_all(experiment, cells)
    folders, told = train_students(experiment, asked), describe_training(asked)
    assert [row["method"] for row in told] == [RD, "fine_tuning"]
    for cell, row in zip(folders, told, strict=True):
        assert row["steps"] == max(read_losses(folders[cell]))
    count, batch = len(training_examples(asked[cells[0]], cells[0])), experiment.settings.student.of(student).batch
    assert batch and batch < count < 10 * batch < 2 * count and count % batch  # one epoch ends, in a short batch
    seen = [10 * batch - (batch - count % batch), 2 * len(experiment.data.splits["train"])]
    assert [row["examples seen"] for row in told] == seen


def test_a_share_of_the_questions_is_drawn_by_the_seed(experiment, prepared):
    quarter = prepare(experiment, (("student.share", 0.25),))
    kard = [Cell("kard_bm25", experiment.student, seed) for seed in (0, 1)]
    whole = training_examples(prepared, kard[0])
    first, second = (training_examples(quarter, cell) for cell in kard)
    assert set(first) < set(whole) and set(second) < set(whole) and first != second
    drawn = {q.prompt for q in experiment.data.splits["train"] if any(q.prompt in source for source, _ in first)}
    assert 0 < len(drawn) <= round(0.25 * len(experiment.data.splits["train"]))
    jobs = [student_job(p, kard[1])[0]["examples"] for p in (prepared, quarter)]
    assert jobs[0] == student_job(prepared, kard[0])[0]["examples"] != jobs[1]


def test_k_at_test_changes_what_is_read_and_not_the_student(experiment, prepared, student):
    one, cell = prepare(experiment, (("retrieval.k", 1),)), Cell("kard_bm25", student, 0)
    assert student_job(one, cell)[0] == student_job(prepared, cell)[0]
    read = read_passages(Reading(experiment, "test", {cell: one}, {}))[cell]
    assert {len(ids) for ids in read.values()} == {1}


CHANGES = [
    ("student.lr", 0.5), ("student.share", 0.5), ("teacher.rationales", 1), ("teacher.flawed", 0.9),
    ("retrieval.k_training", 1), ("student.max_source_tokens", 99), ("knowledge.k1", 2.0), ("student.examples", 7),
    ("world.train", 90), ("world.edition", 1),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[0])
def test_cells_of_one_key_have_one_spec_and_what_changes_the_spec_changes_the_key(
    change, experiment, prepared, student
):
    """A key that left a setting out would let two students share one artifact in silence."""
    cell, other = Cell("kard_bm25", student, 0), prepare(experiment, (change,))
    specs = [student_job(p, cell)[0] for p in (prepared, other)]
    keys = [student_key(p.experiment.settings, cell) for p in (prepared, other)]
    assert specs[0] != specs[1] and keys[0] != keys[1]
    assert student_key(experiment.settings, cell._replace(method="kard_silver")) == keys[0]


@pytest.mark.parametrize(
    "change", [("retrieval.k", 1), ("retrieval.candidates", 5), ("reranker.lr", 0.5), ("reranker.questions", 9),
               ("reranker.similarity", "dot"), ("retrieval.answer_in_query", True), ("test_prompt", "passages_first"),
               ("student.max_new_tokens", 9), ("student.samples", 2), ("world.edition", 1),
               ("world.ailments", 30)], ids=lambda change: change[0],
)  # fmt: skip
def test_predictions_of_one_key_are_one(change, experiment, student):
    for cell in (Cell("kard_reranker", student, 0), Cell("undistilled_reranker", student, 0)):
        assert prediction_key(experiment.at((change,)).settings, cell) != prediction_key(experiment.settings, cell)
    for method in ("undistilled_bm25", "undistilled_silver", "teacher_cot", "few_shot_cot"):
        cell = Cell(method, student, 0)
        for found_by in (("knowledge.k1", 5.0), ("teacher.seed", 5)):
            settings = experiment.at((found_by,)).settings
            assert prediction_key(settings, cell) != prediction_key(experiment.settings, cell), (method, found_by)
    greedy = [prediction_key(experiment.settings, Cell("few_shot", student, seed)) for seed in (0, 1)]
    assert greedy[0] == greedy[1] != prediction_key(experiment.settings, Cell("few_shot_cot", student, 0))


def test_who_computes_changes_no_name_and_is_asked_before_training(experiment, prepared, student):
    cell = Cell(RD, student, 0)
    many = prepare(experiment, (("compute.processes", 8),))
    assert student_job(many, cell)[0] == student_job(prepared, cell)[0]
    trained = train_rerankers(experiment, {0: (prepared, 0)})
    assert train_rerankers(many.experiment, {0: (many, 0)}) == trained  # made by the one, found by the other
    uneven = experiment.at((("compute.processes", 7), ("student.lr", 0.5)))  # another rate: not trained yet
    with pytest.raises(LaunchError, match="a batch of 32 cannot be divided evenly among 7 processes"):
        answer(uneven, [cell])


def test_worlds_of_one_grid_have_their_own_students_passages_and_questions(experiment, student):
    """Side by side they are answered as each is alone, by retrievers of every kind."""
    knobs = (("world.ailments", 30), ("world.test", 12))
    methods = ("kard_bm25", "kard_silver", "kard_reranker", "undistilled_bm25")
    cells = [Cell(method, student, 0, k) for method in methods for k in ((), knobs)]
    both, other = answer(experiment, cells), experiment.at(knobs)
    for cell in cells:
        alone = answer(other if cell.knobs else experiment, [cell._replace(knobs=())])[cell._replace(knobs=())]
        assert both[cell] == alone
        assert both[cell].questions == (other if cell.knobs else experiment).data.splits["test"]


def test_a_reranker_orders_the_candidates_that_kappa_leaves(experiment, prepared):
    trained = train_rerankers(experiment, {0: (prepared, 0)})
    few = prepare(experiment, (("retrieval.candidates", 5),))
    asked = {"all": (prepared, trained[0]), "few": (few, trained[0]), "untrained": (prepared, "bert-nano")}
    ranked = rank(experiment, "test", asked)
    for question in experiment.data.splits["test"]:
        bm25 = [p for p, _ in prepared.runs.by_question[question.id]]
        assert {p for p, _ in ranked["few"][question.id]} == set(bm25[:5])
        assert {p for p, _ in ranked["all"][question.id]} == set(bm25[:20])
    assert ranked["all"] != ranked["untrained"]
    narrow = prepare(experiment, (("reranker.dim", 8),))  # which of its vectors' parts are told apart
    assert rank(experiment, "test", {"": (narrow, "bert-nano")})[""] != ranked["untrained"]
    deep = prepare(experiment, (("reranker.question_candidates", 120),))
    assert max(len(found) for found in deep.runs.by_question.values()) == 120
    assert len(time_ranking(prepared, trained[0], 2, 3)) == 3


def test_gold_passages_are_read_before_those_of_bm25_and_no_reranker_is_trained_for_the_untrained_one(
    experiment, prepared, student
):
    cells = {m: Cell(m, student, 0) for m in ("kard_gold", "kard_untrained", "kard_bm25")}
    before = times_made(experiment)
    read = read_passages(Reading(experiment, "test", dict.fromkeys(cells.values(), prepared), {}))
    assert not [folder for folder in times_made(experiment).keys() - before if folder.parent.name[:9] == "reranker-"]
    gold, k = experiment.data.gold, experiment.settings.retrieval.k
    for question in experiment.data.splits["test"]:
        first, found = read[cells["kard_gold"]][question.id], read[cells["kard_bm25"]][question.id]
        known = min(k, len(gold[question.id]))
        assert len({*first}) == k and {*first[:known]} <= gold[question.id]
        assert first[known:] == [p for p in found if p not in gold[question.id]][: k - known]
    ranked = rank(experiment, "test", {"": (prepared, experiment.settings.reranker.model)})[""]
    assert read[cells["kard_untrained"]] == {q: [p for p, _ in run[:k]] for q, run in ranked.items()}
    assert read[cells["kard_untrained"]] != read[cells["kard_bm25"]]


def test_an_encoder_with_random_weights_has_seen_nothing(experiment, prepared):
    drawn = {"first": draw_encoder(experiment), "other": draw_encoder(experiment, 1)}
    assert draw_encoder(experiment) == drawn["first"] != drawn["other"]
    assert (drawn["first"] / "config.json").read_text() == (NANO / "bert-nano" / "config.json").read_text()
    weights = [load_file(folder / "model.safetensors") for folder in (*drawn.values(), NANO / "bert-nano")]
    for one, other in combinations(weights, 2):
        name = "embeddings.word_embeddings.weight"
        assert one.keys() == other.keys() and not one[name].equal(other[name])
    ranked = rank(experiment, "test", {name: (prepared, model) for name, model in drawn.items()})
    assert (
        ranked["first"].keys() == {q.id for q in experiment.data.splits["test"]} and ranked["first"] != ranked["other"]
    )


def test_dapt_starts_rd_from_a_student_adapted_to_the_corpus(experiment, student):
    neighbour = Cell("dapt", student, 0, (("dapt.corpus", "neighbour"),))
    cells = [Cell("dapt", student, 0), neighbour, Cell(RD, student, 0)]
    assert all(predictions.texts for predictions in answer(experiment, cells).values())
    specs = [json.loads(p.read_text())["spec"] for p in experiment.store.root.glob("student-*/artifact.json")]
    adapted = [json.loads(p.read_text())["spec"] for p in experiment.store.root.glob("adapted-*/artifact.json")]
    plain = student_job(prepare(experiment), cells[2])[0]
    alike = [s for s in specs if s["examples"] == plain["examples"] and s["seed"] == 0]
    assert len({s["settings"]["model"] for s in alike}) == 3 and len({s["passages"] for s in adapted}) == 2


def test_rag_reads_what_its_own_retriever_finds(experiment, prepared, student):
    cell = Cell("rag_warm", student, 0)
    predictions = answer(experiment, [cell])[cell]
    (folder,) = experiment.store.root.glob("rag-*")
    run, losses = search_dense(experiment, "test", {0: (prepared, folder)})[0]
    questions, k = experiment.data.splits["test"], experiment.settings.retrieval.k
    assert predictions.passages == [[p for p, _ in run[q.id][:k]] for q in questions]
    assert losses.keys() == {q for q, found in find_silver(prepared, "test").items() if found}
    made = times_made(experiment)
    kinds = [p.parent.name.split("-")[0] for p in made]
    assert [kinds.count(kind) for kind in ("retriever", "rag", "dense")] == [1, 1, 1]
    assert answer(open_settings(experiment.settings, experiment.store), [cell])[cell] == predictions
    assert times_made(experiment) == made


# What a user adds


TABLES = {"methods": METHODS, "registry": REGISTRY, "retrievers": RETRIEVERS, "reads": READS, "loaders": LOADERS}


@pytest.fixture
def added():
    before = {name: table.copy() for name, table in TABLES.items()}
    yield METHODS
    for name, table in TABLES.items():
        table.clear()
        table.update(before[name])


def test_a_retriever_and_a_reranker_of_ones_own_are_read_like_the_built_in_ones(experiment, prepared, student, added):
    def last(questions, passages, depth):
        """The knowledge base's last passages, whatever is asked."""
        return {i: [(p, 1.0) for p in sorted(passages)[-depth:]] for i in questions}

    def backwards(questions, candidates, passages):
        for run in candidates.values():
            run.reverse()
        return {i: [(p, -score) for p, score in run] for i, run in candidates.items()}

    register_retriever("last", from_texts(last))
    register_reranker("backwards", from_candidates(backwards))
    register_method(Method("kard_last", "KARD (last)", "rationale", "last", "last"))
    register_method(Method("kard_backwards", "KARD (backwards)", "rationale", "bm25_rationale", "backwards"))
    cells = [Cell(m, student, 0) for m in ("kard_last", "kard_backwards")]
    answered = answer(experiment, cells)
    k, kappa = experiment.settings.retrieval.k, experiment.settings.retrieval.candidates
    assert set(map(tuple, answered[cells[0]].passages)) == {tuple(sorted(prepared.runs.passages)[-100:][:k])}
    first = experiment.data.splits["test"][0].id
    found = [p for p, _ in prepared.runs.by_question[first]]
    assert answered[cells[1]].passages[0] == [p for p in reversed(found) if p in found[:kappa]][:k]
    deep = Cell("kard_last", student, 0, (("retrieval.k", 120), ("retrieval.candidates", 120)))
    reading = Reading(experiment, "test", prepare_all(experiment, [deep]), {})
    assert {len(ids) for ids in read_passages(reading)[deep].values()} == {120}
    shown = training_examples(prepared, cells[0])[0][0]
    assert prepared.runs.passages[sorted(prepared.runs.passages)[-100:][0]] in shown


def test_a_student_of_ones_own_is_trained_in_this_process_and_named_by_its_source(experiment, added):
    calls = []

    def load(revision, seed):
        calls.append(seed)
        return load_student("t5-nano-small")

    register_student("mine", load, recipe=2)
    cells = [Cell("fine_tuning", "mine", 0), Cell("few_shot", "mine", 0)]
    many = replace(experiment, settings=experiment.settings.override({"compute.processes": 2}))
    answered = answer(many, cells)  # by one process: others know of no such student
    assert calls == [0, 0] and all(len(predictions.correct) == 24 for predictions in answered.values())
    zero, one = (prediction_key(experiment.settings, Cell("few_shot", "mine", seed)) for seed in (0, 1))
    assert zero != one and writing_job([], experiment.settings.student.of("mine"), 1)[0]["seed"] == 1  # it may draw
    names = [catalogue.identify("mine")]
    assert names[0].startswith("mine#2#")

    def load(revision, seed):
        return load_student("t5-nano-base")

    for changed in ({"recipe": 2}, {"recipe": 3}, {"recipe": 3, "loss": halved}):
        register_student("mine", load, **changed)
        names.append(catalogue.identify("mine"))
    assert len({*names}) == 4
    with pytest.raises(KardError, match="there is a model 'minilm' already: choose another name"):
        register_student("minilm", load)
    with pytest.raises(KardError, match="there is a model 'random-t5' already: choose another name"):
        register_student("random-t5", load)
    with pytest.raises(KardError, match="the student 'other' is named by its functions' source, which cannot be"):
        register_student("other", eval("lambda revision, seed: None"))


def halved(logits, labels):
    """A loss that forgets every answer."""
    assert logits.shape[:2] == labels.shape and logits.dtype == torch.float32
    return 0.5 * cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


def test_a_student_is_trained_by_the_loss_that_it_brings(experiment, added):
    def load(revision, seed):
        return load_student("t5-nano-small")

    register_student("usual", load)
    register_student("halved", load, loss=halved)
    cells = [Cell("kard_bm25", name, 0, (("student.epochs", 5),)) for name in ("usual", "halved")]
    folders = train_students(experiment, prepare_all(experiment, cells))
    usual, half = ([*read_losses(folders[c]).values()] for c in cells)
    assert usual and half == pytest.approx([loss / 2 for loss in usual], rel=0.2)  # Adam takes about the same steps
    for method in ("dapt", "rag"):
        with pytest.raises(DataError, match=f"^{method} trains halved by other losses than its own: leave it out$"):
            answer(experiment, [Cell(method, "halved", 0)])


def test_who_reads_with_a_trained_reranker_in_training_learns_from_its_own_seeds(experiment, student, added):
    asked = []

    def whole(experiment, split, variants):
        asked.extend(seed for _, seed in variants.values())
        return {key: p.runs.by_question for key, (p, _) in variants.items()}

    register_reranker("whole", whole)
    register_method(Method("kard_whole", "KARD (whole)", "rationale", "whole", "whole"))
    cells = [Cell("kard_whole", student, seed) for seed in (3, 4)]
    for cell, prepared in prepare_all(experiment, cells).items():
        student_job(prepared, cell)
    assert asked == [3, 4]
    for change in (("retrieval.candidates", 5), ("reranker.lr", 0.5)):
        one, other = (student_key(e.settings, cells[0]) for e in (experiment, experiment.at((change,))))
        assert one != other


def test_rag_learns_from_the_same_share_of_the_questions_as_others(experiment, student):
    tenth = experiment.at((("student.share", 0.1),))
    (job,) = [_rag_job(p, cell, None) for cell, p in prepare_all(tenth, [Cell("rag", student, 0)]).items()]
    assert job[1][2].keys() <= {q.id for q in tenth.learns_from(0)} < {q.id for q in tenth.data.splits["train"]}


def test_rag_is_named_by_the_side_at_which_sources_are_cut_and_trains_no_lora(experiment, student):
    def job(*knobs):
        return [
            _rag_job(p, cell, None) for cell, p in prepare_all(experiment, [Cell("rag", student, 0, knobs)]).items()
        ]

    ((right, _),), ((left, _),) = job(), job(("student.truncation_side", "left"))
    assert left != right and "truncation_side" not in right["student"]
    ((fast, _),) = job(("student.bf16", True))
    assert fast["student"] == right["student"] | {"bf16": True}
    with pytest.raises(DataError, match=r"RAG trains all weights of its student: leave out student\.lora, or the"):
        job(("student.lora", True))


def test_what_a_rankers_student_learnt_tells_apart_who_reads_with_it(experiment, student, added):
    register_method(Method("undistilled_helpful", "Undistilled (helpful)", reads_at_test="helpful"))
    cells = [Cell("undistilled_helpful", student, 0, (("student.epochs", epochs),)) for epochs in (1, 2)]
    asked = prepare_all(experiment, cells)
    assert len({prediction_key(p.experiment.settings, cell) for cell, p in asked.items()}) == 2
    register_method(Method("kard_shown_helpful", "KARD, shown the helpful", "rationale", "helpful", "helpful"))
    learns = [Cell("kard_shown_helpful", student, 0, (("students", names),)) for names in ([student], ["a", student])]
    assert len({student_key(experiment.settings.override(dict(cell.knobs)), cell) for cell in learns}) == 2


def test_a_method_of_ones_own_may_have_many_texts_vote_and_shares_its_student(experiment, student, added):
    register_method(Method("kard_vote", "KARD, 3 vote", "rationale", "bm25_rationale", "bm25_question", samples=3))
    cells = [Cell("kard_bm25", student, 0), Cell("kard_vote", student, 0)]
    assert len({*train_students(experiment, prepare_all(experiment, cells)).values()}) == 1
    one, three = answer(experiment, cells).values()
    assert {len(texts) for texts in one.texts} == {1} and {len(texts) for texts in three.texts} == {3}
    assert three.passages == one.passages
    for odd, said in (
        (Method("odd", "Odd", "answer", "rag", "rag"), "RAG trains on rationales, and from the student as it comes"),
        (Method("odd", "Odd", "rationale", "rag", "rag", adapted=True), "RAG trains on rationales"),
        (Method("odd", "Odd", reads_at_test="reranker", shots="rationale"), "the examples of a prompt show BM25's"),
    ):
        with pytest.raises(KardError, match=f"the method 'odd' cannot be run: .*{said}"):
            register_method(odd)
    with pytest.raises(KardError, match="the method 'none' cannot be run: samples is 0, not 1 to 999"):
        register_method(Method("none", "None", samples=0))


def test_a_cell_that_registers_can_be_run_again(experiment, student, added):
    """With an edited function, and another row under the same label."""
    for n in (0, 1):
        register_retriever(
            "one", from_texts(lambda asked, texts, _, n=n: {i: [(sorted(texts)[n], 1.0)] for i in asked})
        )
        register_method(Method("kard_one", "KARD (one)", "rationale", "one" if n else "bm25_rationale", "one"))
        read = answer(experiment, [Cell("kard_one", student, 0)])[Cell("kard_one", student, 0)].passages
        assert {*map(tuple, read)} == {(sorted(prepare(experiment).runs.passages)[n],)}
    assert METHODS["kard_one"].reads_in_training == "one"
    with pytest.raises(
        KardError, match=r"there is a method 'kard_one' already \(KARD \(one\)\): give yours another id"
    ):
        register_method(Method("kard_one", "Another"))
    with pytest.raises(KardError, match="there is a method 'kard_bm25' already"):
        register_method(Method("kard_bm25", "KARD (BM25)"))


def test_a_name_that_is_taken_or_unknown_is_one_sentence(experiment, student, added):
    with pytest.raises(KardError, match="there is a retriever 'reranker' already: choose another name"):
        register_reranker("reranker", from_candidates(lambda questions, candidates, passages: candidates))
    with pytest.raises(KardError, match="the method 'lost' cannot be run: reads_at_test is 'nowhere', not one of "):
        register_method(Method("lost", "Lost", reads_at_test="nowhere"))
    added["lost"] = Method("lost", "Lost", reads_at_test="nowhere")
    with pytest.raises(KardError, match="there is no retriever 'nowhere': call register_retriever first, or name one"):
        answer(experiment, [Cell("lost", student, 0)])


# Likelihoods


def test_the_likeliest_option_is_found_once_and_beside_what_was_written(experiment, prepared, student):
    longer = (("student.epochs", 30),)
    cells = {Cell(m, student, 0): prepared for m in (RD, "few_shot", "teacher_cot")}
    cells[Cell("fine_tuning", student, 0, longer)] = prepare(experiment, longer)  # until it has the form of an answer
    trained, written = train_students(experiment, cells), answer(experiment, cells)
    found = weigh_options(experiment, "test", cells, trained, written)
    made = times_made(experiment)
    assert weigh_options(experiment, "test", cells, trained, written) == found and times_made(experiment) == made
    for cell, likelihoods in found.items():
        assert [len(v) for v in likelihoods.total] == [len(q.options) for q in likelihoods.questions]
        if cell.method != "teacher_cot":  # a letter has one character; nothing showed that student letters
            assert likelihoods.total == likelihoods.per_character
    cell = Cell("fine_tuning", student, 0, longer)
    likeliest = [values.index(max(values)) for values in found[cell].total]
    pairs = [(a, b) for a, b in zip(likeliest, written[cell].answers, strict=True) if b is not None]
    agree = sum(a == b for a, b in pairs)  # the letter written greedily is the likeliest, if its text has its tokens
    assert pairs and agree >= 0.9 * len(pairs)
    assert found[cell].correct() == [a == q.answer for a, q in zip(likeliest, found[cell].questions, strict=True)]


def test_targets_may_name_the_options_words(experiment, prepared):
    forms = {"words": r"The answer is \([A-J]\) - .+\.$", "option": r"The answer is (?!\(|[A-J]\b).+\.$"}
    knobs = [(), *((("student.target", form),) for form in forms)]
    variants = [prepared, *(prepare(experiment, changes) for changes in knobs[1:])]
    for learns in ("fine_tuning", RD):
        letters, *others = (training_examples(p, Cell(learns, "t5-nano-base", 0)) for p in variants)
        for named, pattern in zip(others, forms.values(), strict=True):
            assert [source for source, _ in letters] == [source for source, _ in named]
            assert all(re.search(pattern, target) for _, target in named)
    for name, by_words in (("smollm2", True), ("t5-nano-base", False)):  # each kind has its own form
        learns, asks = Cell("fine_tuning", name, 0), Cell("few_shot", name, 0)
        told = training_examples(prepared, learns) + few_shots(prepared, asks)
        assert {bool(re.search(forms["option"], target)) for _, target in told} == {by_words}
    cells = [Cell(RD, "t5-nano-base", 0, changes) for changes in knobs]
    for key in (student_key, prediction_key):
        assert len({key(p.experiment.settings, c) for p, c in zip(variants, cells, strict=True)}) == 3


def test_a_likelihood_is_read_for_a_character_or_in_all():
    asked = [Question("q", "Why?", ("fir", "a tall oak"), 1)]
    found = pipeline.Likelihoods(asked, total=[[-1.0, -2.0]], per_character=[[-0.33, -0.2]])
    assert found.correct() == [True] and found.correct(per_character=False) == [False]


def test_options_are_weighed_after_the_students_own_rationale(experiment, prepared, student, monkeypatch):
    told, test = {}, experiment.data.splits["test"]

    def weigh(_, work):
        told.update(work)
        zeros = {c: [[0.0] * len(options) for options in given[2]] for c, given in work.items()}
        return {c: {"total": zero, "per_character": zero} for c, zero in zeros.items()}

    monkeypatch.setattr(pipeline, "weigh_texts", weigh)
    said = {RD: "It is so. Therefore, the answer is B.", "kard_bm25": "It never ends", "fine_tuning": "Nonsense"}
    written = {
        Cell(m, student, 0): Predictions(test, [[]] * len(test), [[text]] * len(test), [0] * len(test))
        for m, text in said.items()
    }
    weigh_options(experiment, "test", dict.fromkeys(written, prepared), {}, written)
    begun = [{*given[1]} for given in told.values()]
    assert begun == [{"It is so. The answer is"}, {"It never ends The answer is"}, {"The answer is"}]
