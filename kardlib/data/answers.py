"""The answers of texts: which option a generated text concludes with, and what several texts agree on.

`docs/answers.md` has the grammar that is read here, with examples, and says what it means to stop at an answer.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kardlib.data.files import LETTERS
from kardlib.data.prompts import CONCLUSION

UNREAD = -0.0  # score of an answer that could not be read: a 0 like any wrong one in every sum, known by its sign

# Names: an option's letter or its own words

_MARKS = re.compile(r"[*\"`“”$]|(?<!\w)['‘’]|['‘’](?!\w)")  # emphasis and quotation marks; "it's" keeps its apostrophe
_WORDS_AFTER = "and as based because but due for given if in is must not or rather since that was when which while with"
_PHRASE_END = rf"(?=\s*(?:\Z|\n|[.,:](?!\w)|[;!?()\[\]{{}}/&+–—]|-(?!\w))|\s+(?:{_WORDS_AFTER.replace(' ', '|')})\b)"
_BRACKETED = r"[(\[{]\s*([A-Ja-j])\s*[)\]}]"
_NOT_IN_WORD = r"(?!['’]|[.-]\w)"  # "B-cells", "C's" and "E.coli" name no option
_LETTERS_END = rf"(?=(?:\s[A-J]){{0,30}}{_PHRASE_END})"  # "A B C" is a phrase
# A letter that is a word as well ("a matter of taste"), or is not the first name, must end its phrase.
_LETTER = re.compile(rf"{_BRACKETED}|(?<!\w)(?:([B-HJ])\b|([a-j]){_PHRASE_END}|([AI]){_LETTERS_END}){_NOT_IN_WORD}")
_NEXT_LETTER = re.compile(
    rf"(?:{_BRACKETED}|(?<!\w)([A-J]){_LETTERS_END}{_NOT_IN_WORD})(?!\s+(?:is|was|would)\b|\.\s+[a-z])"
)
_ENDS = " .?!"  # a student need not write the mark that an option ends with: "reproduction ?"
_SAME = {"yes": "true", "no": "false", "true": "yes", "false": "no"}

# Choices: one or more names ("B, or acetylcholine", "A and B")

_JOINT = (
    r"[^\S\n]*(?:(?:[,;:+)–—-]|{stop})[^\S\n]*)*((?:(?:or|and|nor)\b|[/&])[^\S\n]*)?"
    r"(?:(?:i\.e\.|(?:namely|that is|which is|also|both|maybe|perhaps|possibly|the|option|choice|answer)\b),?[^\S\n]*)*"
)
_IN_SENTENCE = re.compile(_JOINT.format(stop=r"\.(?=\s+[a-z])"))  # "B. acetylcholine" goes on, "B. It cures" does not
_IN_LINE = re.compile(_JOINT.format(stop=r"\."))
_OPEN = re.compile(r"\s+n?or\b|(?<=\b[A-Ja-j])\.\s+[a-z]")  # "B or none", "E. coli"
_GOES_ON = re.compile(r",?\s*(?:or\b|and\b|[/&])")
_DENIED = re.compile(r"[\s,–—-]*(?:is|was)\s+(?:not|wrong|incorrect|false)\b")

# Conclusions: what makes a choice one

_NOUN = r"(?<!wrong )(?<!incorrect )(?<!each )(?<!every )\b(?:answer|option|choice)(?:\s+(?:option|choice))?"
_TOPIC = r"(?:\s+(?:to|for)\s+(?:the|this)\s[^.?!:()\n]{0,80}?)?(?:,?\s+(?:therefore|thus|hence),?)?"
_IS = r"\s*(?:\b(?:is|remains)\b|\b(?:would|should|must|will|has to)(?:\s+still)?\s+be\b|:|=)\s*:?\s*"
_HEDGE = re.compile(
    r"(?i)(?:(?:therefore|thus|hence|then|still|simply|clearly|definitely|most|likely|probably|to be|"
    r"option|choice|answer|the)\b|(?:both|either)(?=\s\W?[A-J]\b))[,:]?\s*"
)
_BOXED = r"\\boxed\s*(?:\{\s*\\\w+\s*)?\{?\s*"
_STATING = re.compile(rf"(?i)(?=({_NOUN}{_TOPIC}{_IS}|{_BOXED}))")
_QUESTION = re.compile(r"[^.?!:\n]*\?")
_SUPPOSED = re.compile(  # "However, if it were hollow, (then the)" answer would be B; "whether the" answer is B
    r"(?:\A|[.!?\n])\s*(?:(?:\w+\s){0,3}\w+,\s+|(?:But|And|So)\s+)?[Ii]f\b[^.!?\n]*?"
    r"(\bthen (?:\w+ ){0,2})?\Z|(\b(?i:if|whether) (?:\w+ ){0,2})\Z"
)
_NO_INITIAL = r"(?<!\b[A-Z])"  # "P. G. Wodehouse" ends no sentence
_STOP = r"(?:[.!][)\]]?(?=\s)|(?=\n))"
_NEXT = r"\s+(?=[A-Z][\w'’])"
_STOP_HERE, _STOP_LATER = re.compile(rf"[^\S\n]*({_STOP}){_NEXT}"), re.compile(_NO_INITIAL + _STOP + _NEXT)

_SENTENCE = (
    rf"(?:\A|\n|{_NO_INITIAL}[.:;!?]\)?\s)[\s>-]{{0,9}}(?i:(?:so|thus|hence|therefore|option|choice|answer)\b,?\s+)*"
)
_JUDGED = re.compile(rf"{_SENTENCE}|(?i:\b(?:option|choice|answer)\s+)|(?=[(\[])")
_CORRECT = re.compile(
    r"(?i)[\s,)–—-]*\b(?:is|must be)\s+(?:therefore\s+|thus\s+|clearly\s+)?(?:the\s+)?"
    r"(?:(?:correct|right)\b|(?:best|most\s+\w+)\s+(?:answer|option|choice)\b)"
)
_THE_ANSWER = re.compile(
    r"(?i)(?:\bmak(?:es|ing)\s+(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)(?:\s+(?:option|choice))?"
    r"|\bthe\s+(?:(?:correct|right|final|best)\s+)?answer)\s+(?=[(\[])"
)
_NOT_RIGHT = re.compile(
    r"[\s,–—-]*(?:is\s+)?(?:not|wrong|incorrect|false|invalid|inaccurate|unlikely|impossible|less|likely|an?)\b"
)
_LONE = re.compile(_SENTENCE)
_LINE_END = re.compile(r"[^\S\n.!]*[.!]*[^\S\n]*\n")
_TEXT_END = re.compile(r"[\s.!]*\Z")


class Choice(NamedTuple):
    """What a text names as its answer: an index into the options, None where it names none of them or several."""

    start: int  # in characters
    end: int
    answer: int | None


def parse_answer(text: str, options: Sequence[str]) -> int | None:
    """The option that a generated text concludes with, as an index into `options`; None if it concludes none of them.

    Conclusions are "The answer is B.", "Answer: (B)", "The answer is acetylcholine", "\\boxed{B}", "(B) is correct" and
    an option alone in the first line or the last sentence. The last one counts: a text whose last conclusion is "A or
    B", or not among the options, gives None. Of a text that generation ended (`answer_end`) that is the first one.
    """
    text = _MARKS.sub(" ", text)
    choices = [*_stated(text, options), *_judged(text, options)]
    spans = [(choice.start, choice.end) for choice in choices]  # "The answer is (A); (B)." names two, and no lone (B)
    choices += [c for c in _lone(text, options) if not any(start < c.start < end for start, end in spans)]
    return max(choices, key=lambda choice: choice.start).answer if choices else None


def parse_option(text: str, options: Sequence[str]) -> int | None:
    """The same of who learnt to name options by their words: "The answer is A." is B where that option says "A"."""
    said = text.rpartition(f"{CONCLUSION} ")[2].strip().removesuffix(".")
    whole = [{option, option.removesuffix("."), option.rstrip(_ENDS)} for option in options]
    named = [i for i, ways in enumerate(whole) if said in ways]
    named = named or [i for i, option in enumerate(options) if option.startswith(f"{said}. ")]  # cut after an initial
    return parse_answer(text, options) if not named else named[0] if len(named) == 1 else None


def answer_end(text: str) -> int | None:
    """Where the first option ends that a text states by its letter, in characters; None if none is sure yet.

    It is sure once its sentence has ended and a new one has begun. No further text then changes the place, and
    `text[:answer_end(text)]` is read as that option, whatever words the options have.
    """
    text = _MARKS.sub(" ", text)
    for choice in _stated(text, [""] * len(LETTERS), _NEXT_LETTER):
        if choice.answer is not None and not _GOES_ON.match(text, choice.end):
            if stop := _STOP_HERE.match(text, choice.end):
                return stop.end(1)
            stop = _STOP_LATER.search(text, choice.end)
            if not (stop and _DENIED.search(text, choice.end, stop.end())):
                return choice.end if stop else None
    return None


def _stated(text: str, options: Sequence[str], letter: re.Pattern = _LETTER) -> Iterator[Choice]:
    """ "The answer is B.", "Answer: acetylcholine", "\\boxed{B}"."""
    for lead in _STATING.finditer(text):
        at, choice = lead.end(1), _read_choice(text, lead.end(1), options, letter)
        for _ in range(6):  # "is most likely to be the option B"
            if choice or not (hedge := _HEDGE.match(text, at)):
                break
            at, choice = hedge.end(), _read_choice(text, hedge.end(), options, letter)
        if choice and not _QUESTION.match(text, choice.end):  # an option may hold one
            supposed = _SUPPOSED.search(text, max(0, lead.start() - 300), lead.start())
            if not (supposed and (supposed.lastindex or "would" in lead[1].lower())):
                yield choice


def _judged(text: str, options: Sequence[str]) -> Iterator[Choice]:
    """ "(B) is correct", "This makes option (B) the right answer", "the correct answer (B)"."""
    for lead in _JUDGED.finditer(text):
        choice = _read_choice(text, lead.end(), options)
        if choice and _CORRECT.match(text, choice.end) and not _QUESTION.match(text, choice.end):
            yield choice
    for lead in _THE_ANSWER.finditer(text):
        choice = _read_choice(text, lead.end(), options)
        if choice and not _NOT_RIGHT.match(text, choice.end) and not _QUESTION.match(text, choice.end):
            yield choice


def _lone(text: str, options: Sequence[str]) -> list[Choice]:
    """An option alone in the first line or the last sentence; none where the two differ."""
    choices = []
    for lead in _LONE.finditer(text):
        choice = _read_choice(text, lead.end(), options, joint=_IN_LINE)
        if choice and (_TEXT_END.match(text, choice.end) or (lead.start() == 0 and _LINE_END.match(text, choice.end))):
            choices.append(choice)
    return choices if len({choice.answer for choice in choices}) == 1 else []


def _read_choice(
    text: str, at: int, options: Sequence[str], letter: re.Pattern = _LETTER, joint: re.Pattern = _IN_SENTENCE
) -> Choice | None:
    """The names that stand at `at`, one after another; None where there is none."""
    name = _read_name(text, at, options, letter)
    if not name:
        return None
    end, answer = name
    names = [answer]
    own = f" - {_MARKS.sub(' ', options[answer])}" if answer < len(options) and options[answer] else ""
    if own and text.startswith(own, end):  # "(C) - A", as `prompts.answer_text` has it, where "A" is what C says
        end += len(own)
    while between := joint.match(text, end):  # of nothing at least
        name = _read_name(text, between.end(), options, _NEXT_LETTER)
        if not name or name[1] >= len(options):
            break
        if name[1] != answer and not between[1] and not _NEXT_LETTER.match(text, between.end()):
            break  # a letter counts more than words that follow it: "(B) no" is B, whatever B says
        end = name[0]
        names.append(name[1])
    clear = answer < len(options) and set(names) == {answer} and not _DENIED.match(text, end)
    if len(names) == 1:
        clear = clear and not _OPEN.match(text, end)
    return Choice(at, end, answer if clear else None)


def _read_name(text: str, at: int, options: Sequence[str], letter: re.Pattern) -> tuple[int, int] | None:
    """Where the longest name at `at` ends and the option that it names: the own words "E. coli" before the letter E."""
    named = []
    if found := letter.match(text, at):
        named.append((found.end(), LETTERS.index(found[found.lastindex or 0].upper())))
    pattern, indices = _own_words(tuple(options))
    if found := pattern.match(text, at):
        named.append((found.end(), indices[(found.lastindex or 0) - 1]))
    return max(named, key=lambda name: name[0], default=None)  # the letter where both are as long


@functools.lru_cache(maxsize=1024)
def _own_words(options: tuple[str, ...]) -> tuple[re.Pattern, list[int]]:
    """A pattern with a group for every option's words that no other option has, the longest first; each group's option.

    Articles, final stops and upper case say nothing; "true" stands for an option "yes", "false" for "no".
    """
    plain = [" ".join(_MARKS.sub(" ", option).strip(" .").split()) for option in options]
    plain = [re.sub(r"(?i)^(?:an?|the) ", "", words) for words in plain]
    folded = [words.casefold() for words in plain]  # to compare; a pattern that ignores case has no "ss" for "ß"
    known = {words: i for i, words in enumerate(plain) if words and folded.count(folded[i]) == 1}
    known = {_SAME[folded[i]]: i for i in known.values() if folded[i] in _SAME} | known
    longest_first = sorted(known, key=len, reverse=True)
    groups = "|".join(f"({re.escape(words)})".replace(r"\ ", r"\s+") for words in longest_first)
    pattern = rf"(?:(?i:an?|the)\s+)?(?<!\w)(?i:{groups}){_PHRASE_END}" if known else r"(?!)"
    return re.compile(pattern), [known[words] for words in longest_first]


def last_letter(text: str, options: Sequence[str]) -> int | None:
    """The option that a text's last letter names, as an index into `options`, whatever the text says; None if none.

    KARD's released code reads an answer so; it takes the last character, which here would often be a full stop.
    """
    letters = [character for character in text if character.isalpha()]
    answer = LETTERS.find(letters[-1]) if letters else -1
    return answer if 0 <= answer < len(options) else None


def majority_vote(answers: Sequence[int | None]) -> int | None:
    """The answer most samples agree on; of several the one that came first. Samples without an answer do not vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    return votes.most_common(1)[0][0] if votes else None  # most_common keeps the order of arrival among equals


def score(answer: int | None, gold: int) -> float:
    """Right (1) or wrong (0); no answer is a wrong one that is told apart (`UNREAD`)."""
    return UNREAD if answer is None else float(answer == gold)


def unread_share(answers: Sequence[int | None]) -> float:
    """Share of answers that no option could be read from: they count as wrong, whatever the student meant."""
    return sum(answer is None for answer in answers) / len(answers)
