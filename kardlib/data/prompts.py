"""What a student reads and writes: the one place where questions, passages and rationales become text and back."""

from collections.abc import Sequence

from kardlib.data.files import LETTERS, Question

SHOTS = 3  # examples in a few-shot prompt
TEACHER_PROMPT = (
    "Here is a multiple-choice question with its right option. Explain in two to five sentences why that option is "
    "right: state the facts that are needed, then draw the conclusion from them step by step. Write as one who finds "
    "the answer by reasoning, and do not mention that it was given. "
    'End with the sentence "Therefore, the answer is (X).", where X is the letter of the right option.'
)


def source_text(question: Question, passages: Sequence[str] = (), passages_first: bool = False) -> str:
    """The question `x` with its options, then the passages `D^`; training and test use the same words.

    `passages_first` is what notebook 16 takes for a prompt that the student was not trained on.
    """
    asked, read = [f"Question: {question.prompt}"], [f"Passage: {p}" for p in passages]
    return " ".join(read + asked if passages_first else asked + read)


def target_text(rationale: str, answer: int) -> str:
    """The rationale `r`, then the answer `y`: one sequence. An empty rationale leaves the answer alone (FT)."""
    return f"{rationale} The answer is {LETTERS[answer]}.".lstrip()


def few_shot_text(examples: Sequence[tuple[str, str]], source: str, explain: bool, read: bool) -> str:
    """What is asked of an LM that was not fine-tuned: a task, sources with their targets, and the source to go on from.

    The three kinds of KARD's tables: the answer alone, a rationale first, and a rationale first with passages to read.
    """
    task = "Answer each question with the letter of the right option."
    if explain:
        task = "Explain step by step which option is right, then name its letter."
    if read:
        task += " Take the facts from the passages."
    return " ".join([task, *(f"{source} {target}" for source, target in examples), source])


def teacher_text(question: Question) -> str:
    """The prompt `p` with the question `x` and its gold answer `y`: what an LLM teacher is asked."""
    options = [f"{LETTERS[i]}. {option}" for i, option in enumerate(question.options)]
    right = f"Right option: ({LETTERS[question.answer]}) {question.options[question.answer]}"
    return "\n".join([TEACHER_PROMPT, "", f"Question: {question.text}", *options, right])
