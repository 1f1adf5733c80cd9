"""From generated texts to answers: the option that a text concludes with, and the vote of several texts."""

import re
from collections import Counter
from collections.abc import Sequence

from kardlib.data.files import LETTERS

# A letter names an option only where a statement says so, never because it is the last character. A bare letter must be
# upper case ("the answer is a matter of taste" names no option) and stand alone (unlike "B-cells", "C's", "E.coli").
_ROUND = r"[(\[]\s*([A-Ja-j])\s*[)\]]"
_OPTION = rf"(?:{_ROUND}|\b([A-J])(?![\w'\u2019-]|\.\w))"
_CLEAR = r"(?i:(?!,?\s*(?:or|and|nor)\b|\s*/|\s+(?:is|was)\s+(?:not|wrong|incorrect|false)\b))"
_ANSWER_IS = (
    r"(?i:(?<!wrong )(?<!incorrect )\b(?:answer|option|choice)(?:\s+(?:option|choice))?"
    r"(?:\s+to\s+(?:the|this)\s[^.?!:()\n]{0,80}?)?(?:,?\s+(?:therefore|thus|hence),?)?"
    r"\s*(?:\bis\b|\b(?:would|should|must|will|has\s+to)\s+be\b|:|=)\s*"
    r"(?:(?:therefore|thus|hence|clearly|most|likely|probably|option|choice|answer|the)\b[,:]?\s*)*)"
)
_MAKING = (
    r"(?i:\bmaking\s+(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)(?:\s+(?:option|choice))?"
    r"|\bthe\s+(?:(?:correct|right|final|best)\s+)?answer)\s+"
)
_SENTENCE = r"(?:\A|\n|[.:;!?][')]?\s)[\s'>-]{0,9}(?i:(?:so|thus|hence|therefore|option|choice|answer)\b,?\s+)*"
_IS_CORRECT = (
    r"\s+(?i:is\s+(?:therefore\s+|thus\s+|clearly\s+)?(?:the\s+)?"
    r"(?:(?:correct|right)\b|(?:best|most\s+\w+)\s+(?:answer|option|choice)\b))"
)
_CONCLUSIONS = [
    re.compile(pattern)
    for pattern in (
        rf"{_ANSWER_IS}{_OPTION}{_CLEAR}",  # The answer is B. Answer: (B). The answer to this question is option B.
        rf"{_MAKING}{_ROUND}{_CLEAR}",  # ..., making the answer (B).
        rf"(?:{_SENTENCE}|(?i:\b(?:option|choice|answer)\s+)|(?=[(\[])){_OPTION}{_IS_CORRECT}",  # (B) is correct.
        rf"{_SENTENCE}{_OPTION}[\s'.!]*\Z",  # a lone letter at the end
    )
]
_YES_NO = re.compile(rf"{_ANSWER_IS}[('\[]*((?i:yes|no))\b(?!\s+(?i:longer|one|doubt)\b){_CLEAR}")


def parse_answer(text: str, options: Sequence[str]) -> int | None:
    """The option that a generated text concludes with, as an index into `options`; None if it names none of them.

    Conclusions are "The answer is B.", "answer is (B)", "Answer: B", "(B) is correct" and a lone letter as the last
    sentence or line; where the options are yes and no, also "The answer is yes". The last one counts, so a text whose
    last conclusion is not among the options gives None; "The answer is A or B" concludes nothing.
    """
    text = re.sub(r'[*"`“”]', "", text)  # emphasis and quotation marks say nothing here
    words = [option.strip().casefold() for option in options]
    patterns = [*_CONCLUSIONS, _YES_NO] if set(words) == {"yes", "no"} else _CONCLUSIONS
    found = [(m.start(m.lastindex or 0), m[m.lastindex or 0]) for p in patterns for m in p.finditer(text)]
    if not found:
        return None
    said = max(found)[1]
    answer = LETTERS.index(said.upper()) if len(said) == 1 else words.index(said.casefold())
    return answer if answer < len(options) else None


def last_letter(text: str, options: Sequence[str]) -> int | None:
    """The option that a text's last letter names, as an index into `options`; None if it names none of them.

    KARD's released code takes the last character, which in our texts would often be a full stop.
    """
    letters = [character for character in text if character.isalpha()]
    answer = LETTERS.find(letters[-1]) if letters else -1
    return answer if 0 <= answer < len(options) else None


def majority_vote(answers: Sequence[int | None]) -> int | None:
    """The answer of most samples; among equals the one that came first. Samples without an answer do not vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    return votes.most_common(1)[0][0] if votes else None  # most_common keeps the order of arrival among equals
