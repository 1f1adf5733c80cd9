"""What a text concludes is read in every form of the grammar and in no other, and its end does not move."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kardlib.data.answers import answer_end, last_letter, majority_vote, parse_answer, parse_option, score, unread_share
from kardlib.data.files import LETTERS, read_kard
from kardlib.data.prompts import answer_text, target_text
from tests.folders import REAL, ROOT

FOUR = ("w", "x", "y", "z")
YES_NO = ("yes", "no")
STRANGERS = [json.loads(line) for line in (ROOT / "tests" / "strangers" / "answers.jsonl").read_text().splitlines()]

# Forms of the grammar: L and l are the right option's letter, w its own words, O another option's letter

STATED_BY_LETTER = [  # and nothing further can change it once the next sentence has begun
    "The answer is {L}.",
    "So the correct answer is ({L}).",
    "Therefore, the answer is ({L}) {w}.",
    "Answer: {L}\n",
    "**Answer:** ({l})\n",
    "The answer, therefore, is ({L}) because it fits.",
    "The answer to this question is most likely to be {L}.",
    "The answer is '{L}'.",
    "The answer is ({L}), not ({O}).",
    "The answer is {L} rather than {O}.",
    "So it is \\boxed{{{L}}}.",
]
STATED = [
    *STATED_BY_LETTER,
    "answer: {l}.",
    "The answer is {L}, or {w}.",
    "The answer is {L}- {w}",
    "The answer is {L}) {w}",
    "The answer is {L} and not {O}.",
    "The answer is {w}.",
    "the answer is {w} ({L})",
    "Answer: {w}",
    "$\\boxed{{\\text{{{w}}}}}$",
    "It follows that ({L}) is correct.",
    "Option {L} is the correct answer.",
    "Option ({L}), {w}, is the best choice.",
    "This makes option ({L}) the correct answer.",
    "It floats, making the answer ({L}).",
]
ALONE = ["{L}", "({l})", "{L}. {w}", "{L}, or {w}", "{w}.", "Therefore, {L}", "Option {L}."]
JOINTS = [" or ", " and ", ", ", "/", "&", " & ", ", or ", " ", " or maybe ", " and option "]
JOINTS += ["; ", ": ", " + ", ", that is, "]
UNSURE = [  # and the words that must not be taken for a conclusion, nor spoil one that follows
    "Birds lay eggs.",
    "It is treated with vitamin C.",
    "Option (A) is incorrect because B-cells are not birds.",
    "The options are A, B and C.",
    "The answer is not B.",
    "Is the answer C?",
    "If it were iron, then the answer would be (B).",
    "We ask whether the answer is A.",
    "the answer is a matter of taste",
    "The wrong answer is B.",
    "It was P. G. Wodehouse who wrote it.",
    "if",
    "then the",
    "the wrong",
    "(",
]
WORDS = ["acetylcholine", "Foramen ovale", "a septum", "iron", "the femur", "vitamin K", "E. coli", "9.5", "yes", "no"]

prose = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="()[]ABCDEFGHIJabcdefghijnN9"))  # and no "no"
unsure = st.lists(st.sampled_from(UNSURE) | prose, max_size=4).map("\n".join)
options = st.permutations(WORDS).flatmap(lambda words: st.integers(2, 10).map(lambda size: tuple(words[:size])))


def say(data, forms, options):
    """One of the forms about an option that is drawn, and that option."""
    answer = data.draw(st.integers(0, len(options) - 1))
    other = data.draw(st.sampled_from([letter for i, letter in enumerate(LETTERS[: len(options)]) if i != answer]))
    letter, words = LETTERS[answer], options[answer]
    return data.draw(st.sampled_from(forms)).format(L=letter, l=letter.lower(), w=words, O=other), answer


@pytest.mark.parametrize("row", STRANGERS, ids=lambda row: row["text"][:40])
def test_what_strangers_write(row):
    assert parse_answer(row["text"], row["options"]) == row["answer"]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is B.", "B"),
        ("The answer is B .", "B"),
        ("the answer is\nB", "B"),
        ("So the answer is (C) because it fits.", "C"),
        ("The correct answer is option (b), the heart.", "B"),
        ("The answer, therefore, is (A) yes.", "A"),
        ("The answer to this multiple choice question is (D).", "D"),
        ("The answer would be B.", "B"),
        ("Answer: D", "D"),
        ("Answer:D", "D"),
        ("The answer = D", "D"),
        ("**Answer:** (A)", "A"),
        ("The answer is **C**.", "C"),
        ("The answer is $C$.", "C"),
        ("The answer is c — it fits.", "C"),
        ("It rains, making the answer (B) no.", "B"),
        ("(B) is correct.", "B"),
        ("Birds lay eggs. Option B is the correct answer", "B"),
        ("C", "C"),
        ("(c)", "C"),
        ("Birds lay eggs. A.", "A"),
        ("Birds lay eggs.\nB\n", "B"),
        ("Birds lay eggs. Therefore, D", "D"),
        ("The answer is A. No: the answer is C.", "C"),
        ("The answer is A. It cures B.", "A"),
        ("Option (A) is wrong and (B) is not correct. The answer is D.", "D"),
        ("The answer is B. Option (A) is incorrect.", "B"),
        ("The answer is B. But why? Birds lay eggs.", "B"),
        ("(B) is correct. But why? Birds lay eggs.", "B"),
        ("It floats, making the answer (B). But why? Iron would not.", "B"),
    ],
)
def test_conclusions(text, letter):
    assert parse_answer(text, FOUR) == LETTERS.index(letter)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "B is for birds, and birds lay eggs.",
        "It is treated with vitamin C",
        "This is hepatitis B.",
        "hepatitis B is correct",
        "The options are A, B, C.",
        "It was made in the U.S.A",
        "the answer is a matter of taste",
        "The answer is B-cells.",
        "The answer is E.",
        "The answer is B. No, the answer is J.",
        "The answer is A or B.",
        "The answer is (A) and (B).",
        "The answer is not B.",
        "The wrong answer is B.",
        "The answer (B) is incorrect.",
        "The answer is (A) is false.",
        "(B) is correct?",
        "What of the answer (B)? Birds lay eggs.",
        "If it were iron, THE ANSWER WOULD BE B.",
        "The answer is yes.",
    ],
)
def test_no_conclusion(text):
    assert parse_answer(text, FOUR) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is yes.", 0),
        ("The answer is No, it sinks.", 1),
        ('The answer is "no".', 1),
        ("Answer: yes", 0),
        ("The answer is (B) no.", 1),
        ("The answer is yes. Wait: the answer is (B).", 1),
        ("The answer is C.", None),
        ("The answer is no longer known.", None),
        ("The answer is yes or no.", None),
        ("No patient has it, yes.", None),
    ],
)
def test_yes_no(text, answer):
    assert parse_answer(text, YES_NO) == answer
    assert parse_answer(text, ("No", "Yes")) == (answer if answer is None or "(" in text else 1 - answer)


@given(st.text() | unsure, options, st.data())
def test_every_stated_form_is_read_after_any_text(before, options, data):
    said, answer = say(data, STATED, options)
    assert parse_answer(f"{before}\n{said}", options) == answer


@given(st.lists(st.sampled_from(["Birds lay eggs.", "It is hot, and (C) is not."])).map(" ".join), options, st.data())
def test_an_option_alone_is_read_at_the_end_or_in_the_first_line(prose, options, data):
    said, answer = say(data, ALONE, options)
    assert parse_answer(f"{prose} {said}", options) == parse_answer(f"{prose}\n{said}\n", options) == answer
    assert parse_answer(f"{said}\n\nExplanation: {prose}", options) == answer


@given(unsure, options)
def test_a_text_without_a_conclusion_gives_none(text, options):
    assert parse_answer(text, options) is None and answer_end(f"{text}\nThe end.") is None


@given(st.text() | unsure, options, st.sampled_from(JOINTS), st.data())
def test_several_options_give_none(before, options, joint, data):
    first, second, *_ = data.draw(st.permutations(LETTERS[: len(options)]))
    for said in (f"{first}{joint}{second}", f"({first}){joint}({second})"):
        assert parse_answer(f"{before}\nThe answer is {said}.", options) is None


@given(unsure, options, st.sampled_from(["The heart beats. It does. ", "However, it's so.\nWe rest."]), st.data())
def test_a_text_ends_with_its_first_sure_answer(before, options, rest, data):
    said, answer = say(data, STATED_BY_LETTER, options)
    text = f"{before}\n{said} {rest}"
    end = answer_end(text)
    assert end is not None and len(before) < end <= len(f"{before}\n{said}")
    assert parse_answer(text[:end], options) == parse_answer(f"{before}\n{said}", options) == answer
    assert last_letter(text[:end].upper(), options) == answer


@given(st.lists(st.sampled_from(STATED + UNSURE), max_size=5), options, st.data())
def test_more_text_does_not_move_the_end(forms, options, data):
    text = data.draw(st.sampled_from([" ", "\n"])).join(say(data, [form], options)[0] for form in forms)
    end = answer_end(text)
    assert {answer_end(text[:i]) for i in range(len(text))} <= {None, end}
    assert end is None or parse_answer(text[:end], ["o"] * 10) is not None


def test_an_answer_that_could_still_change_is_not_sure():
    for text in (
        "The answer is (B",
        "The answer is (B)",
        "The answer is B",
        "The answer is B.",
        "The answer is B. ",
        "The answer is (B) no, as P. G. Wod",
        "The answer is B, or acetylcholine. It fits.",
        "The answer is A or B. It fits.",
        "The answer is acetylcholine. It fits.",
        "The answer is E. coli. It fits.",
        "The answer is B cells. They fit.",
        "(B) is correct. It fits.",
        "Is the answer B? It fits.",
        "The answer is (A) no is incorrect. It fits.",
    ):
        assert answer_end(text) is None, text
    assert answer_end("word So the answer is (B) no. The answer is B.") == len("word So the answer is (B)")
    assert answer_end("The answer is B. The answer is C. The") == len("The answer is B.")


@given(prose, st.integers(2, 10), st.data())
def test_the_conclusion_is_found_after_any_text(text, size, data):
    answer = data.draw(st.integers(0, size - 1))
    assert parse_answer(f"{text} The answer is {LETTERS[answer]}.", ["o"] * size) == answer


@given(prose, st.integers(0, 3), st.integers(0, 3))
def test_the_last_conclusion_counts(text, first, last):
    said = f"The answer is {LETTERS[first]}. {text} The answer is ({LETTERS[last]})."
    assert parse_answer(said, FOUR) == last


@given(st.text(), st.integers(2, 10))
def test_any_text_gives_an_option_or_none(text, size):
    answer = parse_answer(text, ["o"] * size)
    assert answer is None or 0 <= answer < size


@pytest.mark.timeout(20)
@given(st.text(alphabet=" \n.:*()[]'\"aAbBis", max_size=3000))
def test_odd_text_takes_no_time(text):
    parse_answer(text * 3, YES_NO)


RUNS = [
    " ",
    "A ",
    "\n",
    ". ",
    "answer ",
    "answer to the ",
    "(",
    "answer is the the ",
    "answer: ",
    "if the ",
    "\\boxed{",
]


@pytest.mark.parametrize("piece", RUNS)
@pytest.mark.timeout(20)
def test_long_runs_take_no_time(piece):
    assert parse_answer(piece * 5000, FOUR) is None
    assert answer_end(piece * 5000) is None
    assert answer_end("The answer is A" + piece * 5000) is None


def read_real(count):
    file = REAL / "kard" / "strategyqa" / "rationales_train.jsonl.gz"
    if not file.exists():
        pytest.skip(f"{file} is not here; set KARD_DATA to the folder of KARD's data")
    labels = [json.loads(line)["label"] for line in (file.parent / "train.json").read_text().splitlines()]
    with gzip.open(file, "rt") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]
    return [(text, labels[row["idx"]]) for row in rows for text in row["rationales"]]


def test_recorded_rationales_of_a_real_dataset():
    parsed = [(parse_answer(text, YES_NO), label) for text, label in read_real(300)]
    found = [answer == label for answer, label in parsed if answer is not None]
    assert len(found) > 0.9 * len(parsed)  # the last letter alone is there in 86 %
    assert np.mean(found) > 0.97


def test_ends_of_a_real_datasets_rationales():
    ends = [(text, end) for text, _ in read_real(300) if (end := answer_end(text))]
    pairs = [(parse_answer(text[:end], YES_NO), parse_answer(text, YES_NO)) for text, end in ends]
    assert len(pairs) > 100 and all(kept is not None for kept, _ in pairs)
    assert np.mean([kept == whole for kept, whole in pairs]) > 0.97  # others correct themselves later


@pytest.mark.parametrize(("form", "most"), [("letter", 0), ("words", 0), ("option", 6)])
def test_every_option_of_the_released_questions_can_be_answered(form, most):
    if not REAL.is_dir():
        pytest.skip(f"KARD's released questions are not at {REAL}; set KARD_DATA")
    lost, read_answer = [], parse_option if form == "option" else parse_answer
    for name in ("obqa", "strategyqa", "medqa_usmle_hf"):
        for q in [q for split in read_kard(REAL, name).splits.values() for q in split]:
            targets = [target_text("So it is.", answer_text(q, i, form)) for i in range(len(q.options))]
            lost += [q.id for i, target in enumerate(targets) if read_answer(target, q.options) != i]
    assert len(lost) <= most  # an option's words alone: another option of the question has them too


@pytest.mark.parametrize(
    "options",
    [
        ("O", "A", "B", "AB"),
        ("C++", "C", "Java"),
        ("B", "A"),
        ("i", "ii", "iv"),
        ("Straße", "Weg"),
        ("U.S.", "a b."),
        ("yes", "no"),
    ],
)
def test_who_names_options_by_their_words_is_not_read_by_letters(options):
    for i, option in enumerate(options):
        for text in (
            f"The answer is {option}.",
            f"So it is. The answer is {option}",
            f"The answer is x. The answer is {option}.",
        ):
            assert parse_option(text, options) == i
    assert parse_option("It is so.", options) is None and parse_option("The answer is (B).", options) == 1


def test_who_names_options_by_their_words_need_not_write_the_mark_that_one_ends_with():
    options = ["reproduction ?", "a pet store sale!", "evolution"]
    for said, answer in (("reproduction", 0), ("reproduction ?", 0), ("a pet store sale", 1), ("a pet store sale!", 1)):
        assert parse_option(f"The answer is {said}.", options) == answer
    assert parse_option("The answer is O.K..", ["K.", "O.K.", "O"]) == 1
    assert parse_option("The answer is evolution?", options) is None  # which concludes nothing
    assert parse_option("The answer is sky.", ["sky!", "roots", "sky?"]) is None


def test_an_option_that_begins_with_an_initial_is_read_though_its_text_was_cut_there():
    options = ["E. Fermi", "B. Franklin", "C. Darwin", "A. Einstein"]
    for i, option in enumerate(options):
        text = f"So it is. The answer is {option}. He did."
        assert parse_option(text[: answer_end(text)], options) == i
    assert parse_option("The answer is A.", ["A. Einstein", "B. Franklin", "A. Turing"]) is None


def test_two_options_of_the_same_words_are_none():
    assert parse_option("The answer is sky.", ["sky", "roots", "sky"]) is None


@pytest.mark.parametrize("option", ["Straße", "İstanbul", "ﬁsh", "ß-hCG"])
def test_own_words_may_have_letters_whose_lower_case_is_longer(option):
    assert parse_answer(f"The answer is {option}.", ["x", option]) == 1


@pytest.mark.parametrize("option", ["reproduction ?", "Have you tried to quit?", 'the "second" one', "what? Yes"])
def test_an_option_may_hold_a_question_or_quote_something(option):
    options = [option, "x"]
    assert parse_answer(target_text("Gametes meet.", f"(A) - {option}"), options) == 0
    assert parse_answer(f"The answer is (B) - {option}", [*options[::-1]]) == 1
    assert parse_answer("Could it be that the answer is (A)? The sun is hot", options) is None


@pytest.mark.timeout(20)  # a name of no words would be found again and again
def test_an_option_without_words_is_named_by_its_letter_alone():
    options = ["...", "x"]
    assert parse_answer("The answer is: .", options) is None and parse_answer("The answer is A.", options) == 0


@pytest.mark.parametrize(
    ("answers", "vote"),
    [([0, 1, 1], 1), ([2, 1, 1, 2], 2), ([None, None, 3], 3), ([None], None), ([], None)],
)
def test_majority_vote(answers, vote):
    assert majority_vote(answers) == vote


def test_the_last_letter_is_read_whatever_the_text_says():
    options = ["yes", "no"]
    assert last_letter("The answer is B.", options) == 1 and last_letter("So it is (A)", options) == 0
    assert last_letter("The answer is A because it cures", options) is None
    assert last_letter("The answer is A, not vitamin B", options) == 1
    assert last_letter("The answer is C.", options) is None and last_letter("12.", options) is None


def test_the_unread_share():
    assert unread_share([0, None, 2, None]) == 0.5


def test_an_answer_that_is_not_read_is_a_wrong_one_that_can_be_told_apart():
    scores = [score(answer, gold=1) for answer in (1, 0, None)]
    assert scores == [1, 0, 0] and list(np.signbit(scores)) == [False, False, True]
