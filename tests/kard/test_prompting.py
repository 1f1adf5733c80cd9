"""What limits cut is said or refused, passages go first, and what today's students see and are called is unchanged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, T5Config

from kardlib.data.answers import parse_answer
from kardlib.data.files import Question
from kardlib.data.prompts import answer_text, few_shot_turns, source_text, split_source, target_text
from kardlib.errors import DataError
from kardlib.kard.answering import write_predictions
from kardlib.kard.experiment import Cell
from kardlib.kard.keys import student_settings
from kardlib.kard.methods import METHODS
from kardlib.kard.pipeline import source_texts, training_examples
from kardlib.kard.prompting import fit_sources, limit_targets
from kardlib.kard.student import Examples, load_student, train_student
from kardlib.models.nano import build_tokenizer
from kardlib.presets import preset
from kardlib.settings import StudentSettings
from tests.kard.test_student import EXAMPLES, SETTINGS, save_causal

TOKENIZER, T5, CAUSAL = build_tokenizer(), T5Config(), LlamaConfig(max_position_embeddings=2048)
CHAT = build_tokenizer()
CHAT.chat_template = (
    "{% for message in messages %}{{ message['role'] == 'user' and '(' or '[' }} {{ message['content'] }} "
    "{{ message['role'] == 'user' and ')' or ']' }} {% endfor %}{% if add_generation_prompt %}: {% endif %}"
)
QUESTION = Question("q", "Which remedy will help?", ("fever", "rash"), 0)
WORDS = st.text(st.characters(codec="ascii", exclude_characters=":"), max_size=20).map(lambda text: f"a{text.strip()}")


def count(text):
    return len(TOKENIZER(text).input_ids)


def test_what_is_open_follows_the_kind_of_model():
    own, real = preset("embedded", "own", "somewhere"), preset("embedded", "obqa", "somewhere")
    for settings, model, lr, limit in (
        (own, "t5-nano-base", 3e-3, 64),  # what a student that recalls takes
        (own, "google/flan-t5-base", 1e-4, None),
        (real, "random-t5", 1e-4, 24),
        (real, "google/flan-t5-base", 1e-4, None),
        (preset(), "google/flan-t5-base", 1e-4, 64),  # what a preset sets holds for all
        (preset("paper"), "google/flan-t5-base", 1e-4, 512),
    ):
        student = settings.student.of(model)
        assert (student.model, student.lr, student.max_new_tokens) == (model, lr, limit)


def test_nothing_is_cut_in_the_closed_world(prepared, capsys):
    questions = prepared.experiment.data.splits["test"]
    read = {q.id: [p for p, _ in prepared.runs.by_question[q.id][:3]] for q in questions}
    for method in METHODS.values():
        cell = Cell(method.id, "t5-nano-small", 0)
        settings = student_settings(prepared.experiment.settings, cell)
        if method.reads_in_training in ("", "bm25_rationale", "bm25_question"):
            sources, targets = zip(*training_examples(prepared, cell), strict=True)
            assert fit_sources(sources, TOKENIZER, settings, T5) == list(sources)
            assert limit_targets(targets, TOKENIZER, settings, T5) == settings
        sources = source_texts(prepared, cell, "test", read)
        whole = [" ".join(source) for source in sources] if method.shots else sources
        fitted = fit_sources(sources, TOKENIZER, settings, T5)
        assert [text.split() for text in fitted] == [text.split() for text in whole]
    assert capsys.readouterr().out == ""


# Targets


def test_a_limit_that_is_open_keeps_the_targets_whole():
    targets = [target_text("fever " * n, "B") for n in range(1, 101)]
    for config in (T5, CAUSAL):
        settings = limit_targets(targets, TOKENIZER, StudentSettings(max_new_tokens=None), config)
        examples = Examples([""] * len(targets), targets, TOKENIZER, settings, config)
        assert settings.max_new_tokens == pytest.approx(1.1 * 105, abs=4)
        assert all(labels[-1] == TOKENIZER.eos_token_id for labels in examples.labels)
        assert TOKENIZER.decode(examples[99]["labels"][-4:], skip_special_tokens=True).endswith("B.")


def test_targets_that_are_cut_are_counted_and_answers_are_not_cut_off(capsys):
    targets = [target_text("fever " * n, "B") for n in range(1, 101)]
    limit_targets(targets, TOKENIZER, StudentSettings(max_new_tokens=80), T5)
    assert "max_new_tokens = 80 cuts 26 of 100 targets; 116 would keep 99 % of them whole" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"cuts 82 of 100 targets, so that 82 lose .* raise student\.max_new_tokens to"):
        limit_targets(targets, TOKENIZER, StudentSettings(max_new_tokens=24), T5)
    limit_targets(targets, TOKENIZER, StudentSettings(max_new_tokens=24, model="random-t5"), T5)
    limit_targets(["fever " * 99] * 9, TOKENIZER, StudentSettings(max_new_tokens=24), T5)  # passages conclude nothing
    limit_targets([*["B."] * 200, targets[-1]], TOKENIZER, StudentSettings(max_new_tokens=24), T5)
    assert capsys.readouterr().out.count("cuts") == 2


def test_a_student_is_asked_for_as_much_as_it_learnt_to_write(tmp_path):
    settings = SETTINGS.model_copy(update={"max_new_tokens": None, "epochs": 1})
    train_student(EXAMPLES, settings, seed=0, folder=tmp_path / "student")
    kept = load_student(str(tmp_path / "student"))[0].generation_config.max_new_tokens
    assert 5 < kept < 12
    asked = settings.model_copy(update={"model": str(tmp_path / "student")})
    write_predictions([EXAMPLES[0][0]], asked, 0, tmp_path)
    train_student(EXAMPLES, SETTINGS, seed=0, folder=tmp_path / "limited")
    assert load_student(str(tmp_path / "limited"))[0].generation_config.max_new_tokens is None


# Sources


@given(question=WORDS, passages=st.lists(WORDS, max_size=3), first=st.booleans())
def test_a_source_is_split_into_what_it_was_made_of(question, passages, first):
    asked = Question("q", question, ("fever", "rash"), 0)
    source = source_text(asked, passages, first)
    parts = split_source(source)
    assert "".join(parts) == source and parts[1] == f"Question: {asked.prompt}"


@pytest.mark.parametrize("prompt", ["plain", "chat"])
@pytest.mark.parametrize("first", [False, True], ids=["question_first", "passages_first"])
def test_passages_are_cut_first_and_the_last_one_first(prompt, first, capsys):
    passages = ["fever " * 20, "rash " * 20, "edema " * 20]
    source, tokenizer = source_text(QUESTION, passages, first), CHAT if prompt == "chat" else TOKENIZER
    settings = StudentSettings(max_source_tokens=count(source) - 10, prompt=prompt)
    (fitted,) = fit_sources([source], tokenizer, settings, T5)
    (example,) = Examples([fitted], ["B"], tokenizer, settings, T5)
    seen = tokenizer.decode(example["input_ids"], skip_special_tokens=True)
    assert QUESTION.prompt.replace(" ", "") in seen.replace(" ", "")
    assert seen.count("fever") == 21 and seen.count("rash") == 21 and 3 <= seen.count("edema") < 15
    assert seen.startswith("(") == seen.endswith(":") == (prompt == "chat")
    assert "does not see all passages of 1 of 1 sources; with" in capsys.readouterr().out


def test_cut_on_the_left_the_question_is_kept_too():
    source = source_text(QUESTION, ["fever " * 20, "rash " * 20])
    settings = StudentSettings(max_source_tokens=count(source) - 10, truncation_side="left")
    (fitted,) = fit_sources([source], TOKENIZER, settings, T5)
    assert fitted.startswith(f"Question: {QUESTION.prompt}") and fitted.count("fever") == 21


def test_options_are_never_lost_without_a_word(capsys):
    source = source_text(QUESTION, ["fever " * 20])
    settings = StudentSettings(max_source_tokens=12)
    with pytest.raises(DataError, match=r"not see all options of 3 of 3 questions: set student\.max_source_tokens to"):
        fit_sources([source] * 3, TOKENIZER, settings, T5)
    sources = [source, *[source_text(Question("q", "Why?", ("fever", "rash"), 0)) for _ in range(200)]]
    settings = StudentSettings(max_source_tokens=count(sources[1]))
    fit_sources(sources, TOKENIZER, settings, T5)
    assert "of 1 of 201 sources, of 1 none at all and loses options of 1; with" in capsys.readouterr().out


@pytest.mark.parametrize("first", [False, True], ids=["question_first", "passages_first"])
def test_how_many_read_no_passage_at_all_is_said(first, capsys):
    sources = [source_text(QUESTION, ["fever " * n], first) for n in (2, 20, 20)]
    asked = count(source_text(QUESTION, []))
    fit_sources(sources, TOKENIZER, StudentSettings(max_source_tokens=asked), T5)
    assert "not see all passages of 3 of 3 sources, of 3 none at all; with" in capsys.readouterr().out
    fit_sources(sources, TOKENIZER, StudentSettings(max_source_tokens=asked + 15), T5)
    assert "not see all passages of 2 of 3 sources; with" in capsys.readouterr().out


# Few-shot prompts

SHOTS = [("Question: Which sign?", "The answer is A."), ("Question: Which remedy?", "The answer is B.")]


def test_examples_stand_on_lines_and_in_a_chat_are_turns():
    turns = few_shot_turns(SHOTS, "Question: Why?", explain=False, read=False)
    task = "Answer each question with the letter of the right option."
    plain, chat = (StudentSettings(prompt=form) for form in ("plain", "chat"))
    assert fit_sources([turns], TOKENIZER, plain, T5) == [
        f"{task}\n\nQuestion: Which sign?\nThe answer is A.\n\n"
        "Question: Which remedy?\nThe answer is B.\n\nQuestion: Why?"
    ]
    assert fit_sources([turns], CHAT, chat, CAUSAL) == [
        f"( {task}\n\nQuestion: Which sign? ) [ The answer is A. ] "
        "( Question: Which remedy? ) [ The answer is B. ] ( Question: Why? ) : "
    ]


@pytest.mark.parametrize("explain", [False, True])
def test_the_task_asks_for_answers_as_the_examples_name_them(explain):
    tasks = {
        form: few_shot_turns(SHOTS, "Question: Why?", explain, False, form)[0] for form in ("letter", "words", "option")
    }
    assert "letter" in tasks["letter"] == tasks["words"] and "letter" not in tasks["option"]


@pytest.mark.parametrize("prompt", ["plain", "chat"])
def test_a_prompt_that_is_too_long_loses_its_first_examples_whole_and_then_passages(prompt, capsys):
    tokenizer, source = CHAT if prompt == "chat" else TOKENIZER, source_text(QUESTION, ["edema " * 5])
    shots = [(source_text(QUESTION, [f"{word} " * 20]), "The answer is A.") for word in ("rash", "fever")]
    turns = few_shot_turns(shots, source, explain=False, read=True)

    def fit(limit):
        return fit_sources([turns], tokenizer, StudentSettings(max_source_tokens=limit, prompt=prompt), T5)[0]

    whole = len(tokenizer(fit(10_000)).input_ids)
    assert fit(whole).count("rash") == 21 + 2 and capsys.readouterr().out == ""
    task = turns[0].partition("\n\n")[0]
    left = [f"{task}\n\n{turns[2]}", *turns[3:]]  # the task stays
    assert fit(whole - 1) == fit_sources([left], tokenizer, StudentSettings(prompt=prompt), T5)[0]
    said = f"reads {whole - 1} tokens, student.max_source_tokens for each example and the question, is shown fewer"
    assert f"{said} examples in 1 of 1 prompts" in capsys.readouterr().out
    for less in (0, 3):
        alone = len(tokenizer(fit_sources([source], tokenizer, StudentSettings(prompt=prompt), T5)[0]).input_ids)
        assert (
            fit(alone - less)
            == fit_sources([source], tokenizer, StudentSettings(max_source_tokens=alone - less, prompt=prompt), T5)[0]
        )


# The chat form


def test_a_chat_begins_the_students_turn_and_needs_a_template(tmp_path):
    settings = StudentSettings(prompt="chat")
    assert fit_sources(["Why?"], CHAT, settings, CAUSAL) == ["( Why? ) : "]
    with pytest.raises(DataError, match=r"student\.prompt = chat needs a model with a chat template"):
        fit_sources(["Why?"], TOKENIZER, settings, CAUSAL)
    plain, chat = (
        Examples(["Why?"], ["B."], CHAT, StudentSettings(prompt=form), CAUSAL).labels[0] for form in ("plain", "chat")
    )
    assert CHAT.decode([i for i in chat if i >= 0], skip_special_tokens=True) == "B." and len(plain) >= len(chat)


def test_a_causal_student_learns_to_answer_in_a_chat(tmp_path):
    folder = save_causal(tmp_path / "start", "llama")
    CHAT.save_pretrained(folder)
    examples = [(f"Question: Which remedy will help? A. Bal{i}", f"The answer is {'AB'[i % 2]}.") for i in range(2)]
    settings = SETTINGS.model_copy(
        update={"model": str(folder), "epochs": 60, "lr": 1e-2, "batch": 16, "prompt": "chat", "max_new_tokens": None}
    )
    train_student(examples * 16, settings, seed=0, folder=tmp_path / "student")
    asked = settings.model_copy(update={"model": str(tmp_path / "student")})
    write_predictions([source for source, _ in examples], asked, 0, tmp_path)
    assert [f"answer is {letter}" in (tmp_path / "texts.json").read_text() for letter in "AB"] == [True, True]


# Targets that name an option's words


@given(
    options=st.lists(
        st.sampled_from(["and gate", "A", "vitamin C", "not wrong", "or so", "yes", "is (A)", "U.S.", "x. B-cells"])
        | st.from_regex(r"[a-z]{1,9}( [a-z]{1,9}){0,3}", fullmatch=True).filter(lambda text: "answer" not in text),
        min_size=4, max_size=4,
    ),
    answer=st.integers(0, 3),
)  # fmt: skip
def test_an_answer_with_its_words_is_read_as_its_letter(options, answer):
    question = Question("q", "What helps?", tuple(options), answer)
    for form in ("letter", "words"):
        assert parse_answer(target_text("Fever needs rest.", answer_text(question, answer, form)), options) == answer
