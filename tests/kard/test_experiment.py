"""One small experiment through real Lucene, a real reranker and real students."""

import json
import shutil

import pytest

from kardlib.artifacts.launch import LaunchError
from kardlib.artifacts.store import Store
from kardlib.data.files import DataError, PassageFile
from kardlib.data.world import judge_statements
from kardlib.kard.experiment import Cell, Experiment, open_experiment, statement_shares, write_example
from kardlib.kard.methods import METHODS
from kardlib.retrieval.lucene import KnowledgeError, Lucene
from kardlib.settings import preset


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    return Experiment(preset("smoke"), Store(tmp_path_factory.mktemp("store")))


def test_candidates_are_the_union_with_the_rationales_scores(experiment):
    knobs = experiment.settings.reranker
    ordered = iter(r for r in experiment.filtered[0] if experiment.by_rationale[r.id])  # empty words find nothing
    for candidate in experiment.candidates[:50]:
        rationale = next(ordered)
        assert rationale.question_id == candidate.question_id
        assert (
            list(candidate.from_rationale.items())
            == experiment.by_rationale[rationale.id][: knobs.rationale_candidates]
        )
        asked = experiment.by_question[candidate.question_id][: knobs.question_candidates]
        assert list(candidate.from_question) == [p for p, _ in asked]
        found = dict(experiment.by_rationale[rationale.id])
        for passage, score in candidate.from_question.items():  # of what both found, the scores are one and the same
            assert score == found[passage] if passage in found else score <= min(found.values())


def test_rationales_find_more_gold_than_questions(experiment):
    gold = experiment.data.gold
    questions = experiment.data.splits["test"]
    by_question = sum(bool({p for p, _ in experiment.by_question[q.id][:3]} & gold[q.id]) for q in questions)
    by_rationale = sum(bool({p for p, _ in experiment.by_rationale[f"{q.id}/0"][:3]} & gold[q.id]) for q in questions)
    assert by_rationale > by_question


def test_a_verifier_finds_flaws_that_the_plain_filter_cannot_see(experiment):
    knobs = {"teacher.verifier": "t5-nano-base", "teacher.flawed": 0.5}
    plain, verified = (
        Experiment(experiment.settings.override(changes), experiment.store)
        for changes in (knobs | {"teacher.verifier": None}, knobs)
    )
    assert set(verified.filtered[0]) < set(plain.written["train"])

    def flawed(e):
        judged = [[true for true, _ in judge_statements(e.world, r.text, [])] for r in e.filtered[0]]
        return sum(not truths or not all(truths) for truths in judged) / len(judged)

    assert flawed(verified) < 0.8 * flawed(plain)
    assert verified.filtered[1].correct == len(verified.filtered[0]) and verified.filtered[1].silent == 0


def test_what_a_method_reads_is_what_its_row_says(experiment):
    rd, kard = METHODS["reasoning_distillation"], METHODS["kard_bm25"]
    for method in (rd, kard):
        examples = experiment.training_examples(method)
        assert len(examples) == len(experiment.filtered[0])
        for rationale, (source, _) in zip(experiment.filtered[0], examples, strict=True):
            finds = bool(method.reads_in_training and experiment.by_rationale[rationale.id])
            assert ("Passage:" in source) == finds
    first = experiment.filtered[0][0]
    assert experiment.by_rationale[first.id]
    passages = [experiment.passages[p] for p, _ in experiment.by_rationale[first.id][: experiment.settings.retrieval.k]]
    assert all(p in experiment.training_examples(kard)[0][0] for p in passages)
    answers = experiment.training_examples(METHODS["fine_tuning"])
    assert len(answers) == experiment.filtered[1].questions_left
    assert all(target.startswith("The answer is") for _, target in answers)


def test_the_teachers_words_stand_in_the_oracles_source_only(experiment):
    question = experiment.data.splits["test"][0]
    words = next(r.text for r in experiment.written["test"] if r.question_id == question.id)
    assert words in experiment.test_sources(METHODS["teacher_cot"], "test", 0)[1][0]
    for method in experiment.methods.values():
        if method.id != "teacher_cot":
            assert words not in experiment.test_sources(method, "test", 0)[1][0]


def test_a_grid_shares_students_and_is_not_made_twice(experiment):
    student = experiment.settings.students[0]
    cells = [Cell(m, student, 0) for m in ("kard_bm25", "kard_silver", "reasoning_distillation")]
    first = experiment.run(cells)
    made = {p: p.stat().st_mtime_ns for p in experiment.store.root.glob("*/artifact.json")}
    assert sum(p.parent.name.startswith("student") for p in made) == 2  # the two KARD rows are one student
    again = Experiment(experiment.settings, experiment.store).run(cells)
    assert again == first
    assert {p: p.stat().st_mtime_ns for p in experiment.store.root.glob("*/artifact.json")} == made
    for predictions in first.values():
        assert len(predictions.correct) == len(experiment.data.splits["test"])
        true, supported = statement_shares(experiment.world, predictions)
        assert all(0 <= s <= 1 for s in (*true, *supported))
    assert not any(statement_shares(experiment.world, first[cells[2]])[1])  # RD reads nothing: nothing is supported


def changed(experiment, **overrides) -> Experiment:
    return Experiment(
        experiment.settings.override({n.replace("__", "."): v for n, v in overrides.items()}), experiment.store
    )


def test_a_share_of_the_questions_is_drawn_by_the_seed(experiment):
    quarter, kard = changed(experiment, student__share=0.25), METHODS["kard_bm25"]
    whole, first, second = (
        experiment.training_examples(kard),
        quarter.training_examples(kard, 0),
        quarter.training_examples(kard, 1),
    )
    assert set(first) < set(whole) and set(second) < set(whole) and first != second
    drawn = {q.prompt for q in experiment.data.splits["train"] if any(q.prompt in source for source, _ in first)}
    assert 0 < len(drawn) <= round(0.25 * len(experiment.data.splits["train"]))
    assert experiment.training_examples(kard, 1) == whole  # all of them, whatever the seed


def test_k_at_test_changes_what_is_read_and_not_the_student(experiment):
    one, cell = changed(experiment, retrieval__k=1), Cell("kard_bm25", experiment.settings.students[0], 0)
    assert one._student_job(cell)[0] == experiment._student_job(cell)[0]
    assert one.training_examples(METHODS["kard_bm25"]) == experiment.training_examples(METHODS["kard_bm25"])
    assert {len(ids) for ids in one.reads("bm25_question", "test", 0).values()} == {1}


def test_who_computes_changes_no_name_and_is_asked_before_training(experiment):
    cell = Cell("reasoning_distillation", experiment.settings.students[0], 0)
    many = changed(experiment, compute__processes=8)
    assert many._student_job(cell)[0] == experiment._student_job(cell)[0]
    assert experiment.rerankers == many.rerankers  # made by the one, found by the other
    uneven = changed(experiment, compute__processes=7, student__lr=0.5)  # another rate: not trained yet
    with pytest.raises(LaunchError, match="a batch of 32 cannot be divided evenly among 7 processes"):
        uneven.run([cell])


def test_more_rationales_share_the_searches_of_the_first(experiment):
    more = changed(experiment, teacher__rationales=5)
    assert {i: more.by_rationale[i] for i in experiment.by_rationale} == experiment.by_rationale
    assert f"{experiment.data.splits['train'][0].id}/4" in more.by_rationale


def test_dapt_starts_rd_from_a_student_adapted_to_the_corpus(experiment):
    cell = Cell("dapt", experiment.settings.students[0], 0)
    neighbour = changed(experiment, dapt__corpus="neighbour")
    assert experiment.run([cell])[cell].texts
    plain = experiment._student_job(Cell("reasoning_distillation", *(cell.student, 0)))[0]
    adapted = experiment._student_job(cell)[0]
    assert adapted["examples"] == plain["examples"] and adapted["settings"]["model"] != plain["settings"]["model"]
    assert neighbour._student_job(cell)[0]["settings"]["model"] not in {
        adapted["settings"]["model"], plain["settings"]["model"]
    }  # fmt: skip


def test_a_dataset_of_the_hub_comes_without_rationales():
    experiment = Experiment(preset("smoke", "obqa"))  # without data_dir
    assert experiment.teacher is None and list(experiment.methods) == ["few_shot", "fine_tuning", "ka_fine_tuning"]


def test_rag_reads_what_its_own_retriever_finds(experiment):
    cell = Cell("rag_warm", experiment.settings.students[0], 0)
    predictions = experiment.run([cell])[cell]
    folder = experiment.rag([cell])[cell]
    run, losses = experiment.dense([folder], "test")[folder]
    questions, k = experiment.data.splits["test"], experiment.settings.retrieval.k
    assert predictions.passages == [[p for p, _ in run[q.id][:k]] for q in questions]
    assert losses.keys() == {q for q, found in experiment.silver("test").items() if found}
    made = {p: p.stat().st_mtime_ns for p in experiment.store.root.glob("*/artifact.json")}
    kinds = [p.parent.name.split("-")[0] for p in made]
    assert [kinds.count(kind) for kind in ("retriever", "rag", "dense")] == [1, 1, 1]
    assert Experiment(experiment.settings, experiment.store).run([cell])[cell] == predictions
    assert {p: p.stat().st_mtime_ns for p in experiment.store.root.glob("*/artifact.json")} == made


def test_a_real_dataset_without_a_folder_says_what_to_set():
    with pytest.raises(DataError, match="set data_dir"):
        _ = Experiment(preset("smoke", "unknown")).data


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return write_example(tmp_path_factory.mktemp("example"), "smoke")


def test_your_own_data_go_the_way_of_the_world(example, experiment):
    own = Experiment(preset("smoke", "own", str(example)), experiment.store)
    assert isinstance(own.data.passages, PassageFile)
    assert [len(own.data.splits[s]) for s in ("train", "silver", "dev", "test")] == [91, 5, 24, 24]
    texts = {p.id: p.text for p in own.data.passages}
    needed = {p for run in (own.by_question, own.by_rationale) for ranked in run.values() for p, _ in ranked}
    needed |= set().union(*own.data.gold.values())
    assert own.passages == {i: texts[i] for i in needed}
    assert {m.reads_at_test for m in own.methods.values()} == {"", "bm25_question", "reranker"}
    assert len(own.candidates) > 100  # which the reranker is trained on
    source, target = own.training_examples(METHODS["kard_bm25"])[0]
    assert "Passage:" in source and "The answer is" in target


def test_an_index_that_is_there_takes_the_place_of_the_passages(example, experiment, tmp_path):
    own = Experiment(preset("smoke", "own", str(example)), experiment.store)
    bare = shutil.copytree(example, tmp_path / "bare")
    (bare / "passages.jsonl").unlink()
    with pytest.raises(DataError, match=r"comes without passages: put passages\.jsonl .* or set knowledge"):
        _ = Experiment(preset("smoke", "own", str(bare)), experiment.store).by_question
    given = preset("smoke", "own", str(bare)).override({"knowledge.index": str(own.index)})
    assert Experiment(given, experiment.store).by_question == own.by_question
    assert Experiment(given, experiment.store).passages == own.passages
    with Lucene(given.knowledge) as lucene:
        lucene.build(tmp_path / "other", list(own.data.passages)[:50])
    other = given.override({"knowledge.index": str(tmp_path / "other")})
    with pytest.raises(
        KnowledgeError, match=r"has no passage 'p.*: it is of another corpus than the run tables or gold"
    ):
        _ = Experiment(other, experiment.store).passages


def test_without_rationales_only_answers_are_learnt(example, experiment, tmp_path):
    quiet = shutil.copytree(example, tmp_path / "quiet")
    (quiet / "rationales.jsonl").unlink()
    own = Experiment(preset("smoke", "own", str(quiet)), experiment.store)
    assert list(own.methods) == ["few_shot", "fine_tuning", "ka_fine_tuning"]
    examples = own.training_examples(METHODS["ka_fine_tuning"])
    assert len(examples) == len(own.data.splits["train"]) and all("Passage:" in source for source, _ in examples)
    assert own.test_sources(METHODS["few_shot"], "test", 0)[1][0].count("Question:") == 4
    with pytest.raises(DataError, match=r"nobody has written rationales .*: put rationales\.jsonl beside"):
        _ = own.written
    rows = [{"question_id": q.id, "rationales": ["One only."]} for q in own.data.splits["train"][:7]]
    (quiet / "rationales.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    few = Experiment(own.settings, experiment.store)
    assert len(few.training_examples(METHODS["reasoning_distillation"])) == 7


def test_your_own_data_are_opened_by_parameters_alone(example):
    assert open_experiment("embedded", "own", str(example)).settings.students == ("t5-nano-base",)
    with pytest.raises(DataError, match=r"set data_dir to the folder that holds questions\.jsonl and passages\.jsonl"):
        _ = open_experiment("embedded", "own").data
