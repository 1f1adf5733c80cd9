"""The texts that models read and write: sources and targets of students, prompts of language models and teachers."""

from collections.abc import Sequence

from kardlib.data.files import LETTERS, Question

Source = str | Sequence[str]  # what a model is asked: one text, or the turns of a few-shot prompt
SHOTS = 3  # examples in a few-shot prompt
CUT = 0.01  # share of the texts that may be cut without a word
NEW_TOKENS = 160  # of a student that never learnt how much there is to write
CONCLUSION = "The answer is"  # how the last sentence of every target begins
TEACHER_PROMPT = (
    "Here is a multiple-choice question with its right option. Explain in two to five sentences why that option is "
    "right: state the facts that are needed, then draw the conclusion from them step by step. Write as one who finds "
    "the answer by reasoning, and do not mention that it was given. "
    'End with the sentence "Therefore, the answer is (X).", where X is the letter of the right option.'
)


def source_text(question: Question, passages: Sequence[str] = (), passages_first: bool = False) -> str:
    """A student's source in training and at test: the question `x` with its options, then the passages `D^`.

    `passages_first` gives the prompt of notebook 16 that the student was not trained on.
    """
    asked, read = [f"Question: {question.prompt}"], [f"Passage: {p}" for p in passages]
    return " ".join(read + asked if passages_first else asked + read)


def split_source(source: str) -> tuple[str, str, str]:
    """A source's parts, which make it up: what stands before its question, the question, what stands after it.

    Texts that themselves hold "Question: " or "Passage: " after a space are split there. Without a question all stands
    before it.
    """
    start = 0 if source.startswith("Question: ") else source.rfind(" Question: ") + 1
    if not source.startswith("Question: ", start):
        return source, "", ""
    end = source.find(" Passage: ", start)
    end = len(source) if end < 0 else end
    return source[:start], source[start:end], source[end:]


def answer_text(question: Question, answer: int, form: str) -> str:
    """How an answer `y` is named after "The answer is": B (`letter`), (B) - sunlight (`words`) or sunlight (`option`).

    `answers.parse_answer` reads the first two, `parse_option` the last; the dash keeps words such as "and", or an
    option "A", from being read as more. The papers' students name letters.
    """
    letter, option = LETTERS[answer], question.options[answer]
    return {"letter": letter, "words": f"({letter}) - {option}", "option": option}[form]


def target_text(rationale: str, answer: str) -> str:
    """A student's target: the rationale `r`, which plain fine-tuning leaves empty, then what names the answer `y`."""
    return f"{rationale} {CONCLUSION} {answer}.".lstrip()


def gold_text(question: Question, form: str, rationale: str = "") -> str:
    """What is to be learnt of a training question: a rationale, if any, and the gold answer, named in that form."""
    return target_text(rationale, answer_text(question, question.answer, form))


def few_shot_turns(
    examples: Sequence[tuple[str, str]], source: str, explain: bool, read: bool, form: str = "letter"
) -> list[str]:
    """The prompt of an LM that was not fine-tuned, in turns: example sources and their targets, and the source.

    The first turn begins with the task, which asks for answers in the examples' `form`. KARD's Tables 1 and 2 have
    three kinds: the answer alone, a rationale first (`explain`), and one with passages to read (`explain` and `read`).
    """
    by_letter = form != "option"
    task = f"Answer each question with {'the letter of ' if by_letter else ''}the right option."
    if explain:
        task = f"Explain step by step which option is right, then name {'its letter' if by_letter else 'it'}."
    if read:
        task += " Take the facts from the passages."
    first, *others = [*(turn for example in examples for turn in example), source]
    return [f"{task}\n\n{first}", *others]


def teacher_text(question: Question) -> str:
    """The LLM teacher's prompt: `p` with the question `x` and its gold answer `y` (KARD, Section 4)."""
    options = [f"{LETTERS[i]}. {option}" for i, option in enumerate(question.options)]
    right = f"Right option: ({LETTERS[question.answer]}) {question.options[question.answer]}"
    return "\n".join([TEACHER_PROMPT, "", f"Question: {question.text}", *options, right])
