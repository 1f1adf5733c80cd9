"""Rationales, runs and candidates of one small experiment, through real Lucene."""

import dataclasses
import json
import shutil

import pytest

from kardlib.artifacts.disk import hash_file
from kardlib.artifacts.store import fingerprint
from kardlib.data.prompts import source_text, target_text
from kardlib.data.records import LETTERS
from kardlib.data.world import judge_statements
from kardlib.errors import DataError
from kardlib.kard.experiment import Cell, open_settings
from kardlib.kard.pipeline import source_texts, training_examples
from kardlib.kard.prepare import find_candidates, find_silver, name_passages, prepare, query_texts, write_rationales
from kardlib.kard.student import train_student
from kardlib.kard.teacher import Rationale
from kardlib.presets import preset
from kardlib.retrieval.lucene import KnowledgeError, Lucene


def cell(method, seed=0):
    return Cell(method, "t5-nano-small", seed)


def test_candidates_are_the_union_with_the_rationales_scores(prepared):
    knobs, runs = prepared.experiment.settings.reranker, prepared.runs
    ordered = iter(r for r in prepared.rationales.kept if runs.by_rationale[r.id])  # empty words find nothing
    for candidate in find_candidates(prepared)[:50]:
        rationale = next(ordered)
        assert rationale.question_id == candidate.question_id
        found = runs.by_rationale[rationale.id]
        assert list(candidate.from_rationale.items()) == found[: knobs.rationale_candidates]
        asked = runs.by_question[candidate.question_id][: knobs.question_candidates]
        assert list(candidate.from_question) == [p for p, _ in asked]
        found = dict(found)
        for passage, score in candidate.from_question.items():  # of what both found, the scores are one and the same
            assert score == found[passage] if passage in found else score <= min(found.values())


def test_candidates_of_questions_that_nothing_learns_from_are_made_in_the_same_way(prepared):
    runs, knobs = prepared.runs, prepared.experiment.settings.reranker
    written = [r for r in prepared.rationales.written["test"] if runs.by_rationale[r.id]]
    for rationale, candidate in zip(written, find_candidates(prepared, "test"), strict=True):
        assert candidate.question_id == rationale.question_id
        assert [*candidate.from_rationale.items()] == runs.by_rationale[rationale.id][: knobs.rationale_candidates]
        found = dict(runs.by_rationale[rationale.id])
        assert all(score == found.get(p, score) for p, score in candidate.from_question.items())


def test_rationales_find_more_gold_than_questions(prepared):
    gold, questions = prepared.experiment.data.gold, prepared.experiment.data.splits["test"]
    runs = prepared.runs
    by_question = sum(bool({p for p, _ in runs.by_question[q.id][:3]} & gold[q.id]) for q in questions)
    by_rationale = sum(bool({p for p, _ in runs.by_rationale[f"{q.id}/0"][:3]} & gold[q.id]) for q in questions)
    assert by_rationale > by_question


def test_a_verifier_finds_flaws_that_the_plain_filter_cannot_see(experiment, tmp_path):
    flaws = ("teacher.flawed", 0.5)
    plain = experiment.at((flaws,))
    unfiltered, questions = write_rationales(plain), {q.id: q for q in plain.data.splits["train"]}

    def is_sound(rationale):
        truths = [true for true, _ in judge_statements(plain.world, rationale.text, [])]
        return bool(truths) and all(truths)

    def flawed(rationales):
        return sum(not is_sound(r) for r in rationales) / len(rationales)

    learnt = [r for r in unfiltered.written["train"] if r.number < 2]  # a verifier that was taught which ones hold
    examples = [
        (source_text(q, [r.text]), target_text("", LETTERS[q.answer]) if is_sound(r) else "No.")
        for r in learnt
        for q in [questions[r.question_id]]
    ]
    settings = experiment.settings.student.model_copy(update={"lr": 3e-3, "steps": 100, "batch": 32})
    train_student(examples, settings.of("t5-nano-small"), 0, tmp_path)
    verified = write_rationales(experiment.at((flaws, ("teacher.verifier", str(tmp_path)))))
    assert set(verified.kept) < set(learnt) and flawed(verified.kept) < 0.8 * flawed(unfiltered.kept)
    assert verified.counts.correct == len(verified.kept)


def test_a_verifier_may_be_shown_five_examples(experiment, monkeypatch):
    asked = {}

    def weigh(_, work):
        ((sources, begun, options, settings, _),) = work.values()
        asked.update(sources=sources, begun=begun, options=options, settings=settings)
        return {"": {"total": [[-1.0] * (len(o) - 1) + [-0.5] for o in options]}}

    monkeypatch.setattr("kardlib.kard.prepare.weigh_texts", weigh)
    knobs = ("teacher.verifier", "t5-nano-base"), ("teacher.verifier_prompt", "five_shot")
    found = write_rationales(experiment.at(knobs))
    questions = {q.id: q for q in experiment.data.splits["train"]}
    written = [r for r in found.written["train"] if r.number < 2]
    assert found.kept == [
        r for r in written if questions[r.question_id].answer == len(questions[r.question_id].options) - 1
    ]
    for source, r, options in zip(asked["sources"], written, asked["options"], strict=True):
        assert [turn.count("Question: ") for turn in source] == [1, 0] * 5 + [1]
        assert [turn.count("The answer is") for turn in source] == [0, 1] * 5 + [0]
        assert questions[r.question_id].prompt not in "".join(source[:-1])  # no example tells the answer
        assert source[-1].endswith(f"{questions[r.question_id].prompt} {r.text}")
        assert options == list("ABCD")[: len(questions[r.question_id].options)]
    assert {*asked["begun"]} == {"The answer is"}
    assert asked["settings"].max_source_tokens == 6 * experiment.settings.student.max_source_tokens


def test_the_likeliest_letter_is_the_verifiers_pick(experiment):
    few = experiment.at((("teacher.verifier", "t5-nano-small"), ("teacher.verifier_prompt", "five_shot"),
                         ("world.train", 12)))  # fmt: skip
    found = write_rationales(few)
    assert found.counts.written == 24 == found.counts.kept + found.counts.wrong
    assert write_rationales(few).kept == found.kept


def test_a_training_rationales_query_may_name_the_answer(experiment, prepared):
    named = experiment.at((("retrieval.answer_in_query", True),))
    questions = {q.id: q for split in experiment.data.splits.values() for q in split}
    for split, rationales in prepared.rationales.written.items():
        for r in rationales[:20]:
            assert query_texts(experiment, [r]) == {r.id: r.text}
            end = f"\nAnswer: {'ABCD'[questions[r.question_id].answer]}" * (split == "train")
            assert query_texts(named, [r]) == {r.id: r.text + end}
    long = Rationale(experiment.data.splits["train"][0].id, 0, "word " * 1000, None)
    assert len(query_texts(named, [long])[long.id]) == 3000 + len("\nAnswer: A")  # the answer is not cut


def test_rare_terms_change_the_questions_candidates_alone(experiment, prepared):
    common = find_candidates(prepare(experiment, (("reranker.rare_terms", False),)))
    pairs = list(zip(find_candidates(prepared), common, strict=True))
    assert all(one.from_rationale == other.from_rationale for one, other in pairs)
    assert all(one.from_question.keys() == other.from_question.keys() for one, other in pairs)
    changes = [one.from_question[p] - s for one, other in pairs for p, s in other.from_question.items()]
    assert min(changes) > -1e-4


def test_more_rationales_share_the_searches_of_the_first(experiment, prepared):
    more = prepare(experiment, (("teacher.rationales", 5),))
    assert {i: more.runs.by_rationale[i] for i in prepared.runs.by_rationale} == prepared.runs.by_rationale
    assert f"{experiment.data.splits['train'][0].id}/4" in more.runs.by_rationale


def test_preparing_again_makes_nothing(experiment, prepared):
    made = {p: p.stat().st_mtime_ns for p in experiment.store.root.glob("*/artifact.json")}
    again = prepare(open_settings(experiment.settings, experiment.store))
    assert again.runs == prepared.runs or vars(again.runs) == vars(prepared.runs)
    assert {p: p.stat().st_mtime_ns for p in experiment.store.root.glob("*/artifact.json")} == made


def test_your_own_data_go_the_way_of_the_world(example, experiment):
    own = prepare(open_settings(preset("smoke", "own", str(example)), experiment.store))
    texts = {p.id: p.text for p in own.experiment.data.passages}
    needed = {p for run in (own.runs.by_question, own.runs.by_rationale) for ranked in run.values() for p, _ in ranked}
    needed |= set().union(*own.experiment.data.gold.values())
    assert own.runs.passages == {i: texts[i] for i in needed}
    assert len(find_candidates(own)) > 100  # which the reranker is trained on
    source, target = training_examples(own, cell("kard_bm25"))[0]
    assert "Passage:" in source and "The answer is" in target


def test_what_others_than_bm25_search_of_your_own_passages_is_what_it_found(example, experiment, monkeypatch):
    """No gold passage beside it, which would be given away; and its name follows whatever decides what is found."""
    monkeypatch.setattr("kardlib.kard.prepare.DEPTH", 1)
    monkeypatch.setattr("kardlib.kard.prepare.SILVER", 1)
    depths = ["retrieval.k", "retrieval.k_training", "retrieval.candidates"]
    few = dict.fromkeys([*depths, "reranker.question_candidates", "reranker.rationale_candidates"], 1)
    own = prepare(open_settings(preset("smoke", "own", str(example)).override(few), experiment.store))
    found = {p for run in (own.runs.by_question, own.runs.by_rationale) for ranked in run.values() for p, _ in ranked}
    assert own.runs.pool.keys() == found < own.runs.passages.keys()
    other = prepare(own.experiment, (("knowledge.k1", 5.0), ("knowledge.b", 1.0)))
    assert other.runs.pool.keys() != found and other.runs.pool_name != own.runs.pool_name
    assert other.runs.passages_name == own.runs.passages_name


def test_variants_share_the_passages_whose_corpus_is_read_once(example, experiment, prepared, tmp_path, monkeypatch):
    own = open_settings(preset("smoke", "own", str(shutil.copytree(example, tmp_path / "own"))), experiment.store)
    hashed, written = [], []

    def hash_and_note(path):
        if not path.is_relative_to(experiment.store.root):  # where every file is hashed as it is made
            hashed.append(path)
        return hash_file(path)

    monkeypatch.setattr("kardlib.artifacts.disk.hash_file", hash_and_note)
    monkeypatch.setattr("kardlib.kard.prepare.fingerprint", lambda value: written.append(value) or fingerprint(value))
    first, *others = (prepare(own, knobs) for knobs in ((), (("retrieval.k", 1),), (("retrieval.k", 2),)))
    assert hashed == [own.data.passages.path]
    assert all(other.runs.passages is first.runs.passages for other in others)
    assert prepare(experiment, (("retrieval.k", 1),)).runs.passages is prepared.runs.passages
    assert prepared.runs.passages not in written  # the world's are hashed where they are held
    with own.data.passages.path.open("a") as file:
        file.write('{"id": "another", "contents": "One passage more."}\n')
    assert name_passages(own) != first.runs.passages_name  # a corpus that has changed is read again


def test_an_index_that_is_there_takes_the_place_of_the_passages(example, experiment, tmp_path):
    own = prepare(open_settings(preset("smoke", "own", str(example)), experiment.store))
    bare = shutil.copytree(example, tmp_path / "bare")
    (bare / "passages.jsonl").unlink()
    with pytest.raises(DataError, match=r"comes without passages: put passages\.jsonl .* or set knowledge"):
        prepare(open_settings(preset("smoke", "own", str(bare)), experiment.store))
    given = preset("smoke", "own", str(bare)).override({"knowledge.index": str(own.runs.index.folder)})
    found = prepare(open_settings(given, experiment.store))
    assert found.runs.by_question == own.runs.by_question and found.runs.passages == own.runs.passages
    with Lucene(given.knowledge) as lucene:
        lucene.build(tmp_path / "other", list(own.experiment.data.passages)[:50])
    other = given.override({"knowledge.index": str(tmp_path / "other")})
    with pytest.raises(
        KnowledgeError, match=r"has no passage 'p.*: it is of another corpus than the run tables or gold"
    ):
        prepare(open_settings(other, experiment.store))


def test_without_rationales_only_answers_are_learnt(example, experiment, tmp_path):
    quiet = shutil.copytree(example, tmp_path / "quiet")
    (quiet / "rationales.jsonl").unlink()
    own = prepare(open_settings(preset("smoke", "own", str(quiet)), experiment.store))
    undistilled = ["undistilled", "undistilled_bm25", "undistilled_gold"]
    assert list(own.experiment.methods) == ["few_shot", *undistilled, "fine_tuning", "ka_fine_tuning"]
    examples = training_examples(own, cell("ka_fine_tuning"))
    assert len(examples) == len(own.experiment.data.splits["train"])
    assert all("Passage:" in source for source, _ in examples)
    nothing = {q.id: [] for q in own.experiment.data.splits["test"]}
    assert len(source_texts(own, cell("few_shot"), "test", nothing)[0]) == 7  # three examples of two turns
    for needs_rationales in (find_candidates, lambda p: find_silver(p, "train")):
        with pytest.raises(DataError, match=r"nobody has written rationales .*: put rationales\.jsonl beside"):
            needs_rationales(own)
    for method in ("reasoning_distillation", "kard_bm25", "few_shot_cot"):  # no target without the rationale's words
        with pytest.raises(DataError, match="nobody has written rationales"):
            training_examples(own, cell(method))
    with pytest.raises(DataError, match="nobody has written rationales"):
        source_texts(own, cell("few_shot_cot"), "test", nothing)
    rows = [{"question_id": q.id, "rationales": ["One only."]} for q in own.experiment.data.splits["train"][:7]]
    (quiet / "rationales.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    few = prepare(open_settings(own.experiment.settings, experiment.store))
    assert len(training_examples(few, cell("reasoning_distillation"))) == 7
    late = prepare(few.experiment, (("student.share", 0.01),))
    with pytest.raises(
        DataError, match=r"nothing to learn from: of 91 training .* draws 1, and none of them has a ratio"
    ):
        [training_examples(late, cell("reasoning_distillation", seed)) for seed in range(5)]


def test_rationales_that_all_conclude_another_option_are_one_sentence(example, experiment, tmp_path):
    folder = shutil.copytree(example, tmp_path / "wrong")
    questions = open_settings(preset("smoke", "own", str(folder))).data.splits["train"]
    wrong = {q.id: f"The answer is {LETTERS[q.answer - 1]}." for q in questions if q.answer}
    rows = [{"question_id": id, "rationales": [text]} for id, text in wrong.items()]
    (folder / "rationales.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = prepare(open_settings(preset("smoke", "own", str(folder)), experiment.store))
    assert own.rationales.kept == [] and own.rationales.counts.wrong == len(rows)
    for needs_rationales in (find_candidates, lambda p: training_examples(p, cell("reasoning_distillation"))):
        with pytest.raises(
            DataError, match=rf"of {len(rows)} rationales of training .* none is left .*correct_only to fa"
        ):
            needs_rationales(own)
    assert len(training_examples(own, cell("fine_tuning"))) == len(questions)  # answers alone need no rationale
    kept = prepare(own.experiment, (("teacher.correct_only", False),))
    assert len(training_examples(kept, cell("reasoning_distillation"))) == len(rows)


def test_rationales_that_find_no_passage_are_one_sentence(example, experiment, tmp_path):
    folder = shutil.copytree(example, tmp_path / "odd")
    questions = open_settings(preset("smoke", "own", str(folder))).data.splits["train"]
    rows = [{"question_id": q.id, "rationales": ["Xyzzy."]} for q in questions]
    (folder / "rationales.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = prepare(open_settings(preset("smoke", "own", str(folder)), experiment.store))
    with pytest.raises(DataError, match=r"none of 91 rationales of the reranker's 91 questions found a passage: raise"):
        find_candidates(own)


def test_a_verifier_is_not_asked_about_nothing(experiment):
    asked = experiment.at((("teacher.verifier", "t5-nano-base"),))
    silent = dataclasses.replace(asked, teacher=lambda questions, number: [])
    assert write_rationales(silent).kept == []
