"""Find an option of a multiple-choice question in a text: by letter, by its text, or by both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from string import ascii_uppercase

from vlprm.answers.canonical import CANONICAL, as_expression
from vlprm.answers.formula import formula
from vlprm.answers.number_words import in_words
from vlprm.answers.plain import CJK, VERB, number, plain, unboxed
from vlprm.answers.remaining import remaining
from vlprm.answers.units import Unit
from vlprm.answers.words import without_lead_in
from vlprm.schema import AnswerType

_IN_PROSE = {"yes", "no", "true", "false", "none", "a", "all", "both", "neither"}  # words that occur in any sentence
_SYMBOLS = re.compile(r"\s*([^\w\s]|\\[a-z]+)\s*")
_IS_RIGHT = r"is (?:the )?(?:only )?(?:correct|right|best|answer)\b|(?:remains|is left)\b|(?:选项|選項|项|項)?(?:是?正确|是?正確|对|對)"
_LETTER = re.compile(
    r"\W*(?:[Oo]nly )?(?:[Oo]ption |[Cc]hoice |[Ll]etter |[Aa]nswer |选项|選項)?"
    rf"(?:\(\s*([A-Za-z])\s*\)|([A-Z])(?=\s*(?:[().:,;!、\]*】\u2600-\u27bf\U0001f300-\U0001faff]|$|{_IS_RIGHT})))"
)
_LETTER_IS_RIGHT = re.compile(rf"\W*(?:[Oo]nly )?(?:[Oo]ption |[Cc]hoice )?\(?([A-Z])\)?\s(?:{_IS_RIGHT})")
_TWO = re.compile(
    r"\W*(?:[Oo]nly )?([A-Z])\W{0,2}\s?(?:[,/&;+、]|and\b|or\b)\s?(?:and |or )?\W?([A-Z])(?![A-Za-z])"
    r"(?!(?<=[,;]\s[A-Z])\s(?!and\b|or\b|are\b)[a-z])"  # but not "B; A would be larger"
)
_SO_YES = re.compile(r"\b(?:so|thus|therefore|hence)\W+(?:the answer is\W+)?(yes|no)\W*$", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:is|are|was|were|does|do|did|has|have|can)(?: not\b|n't\b)")
MAX_LEFT = 1000  # characters at the end of a text in which options are excluded
_BRACKETED = re.compile(r"\(\s*([A-Z])\s*\)")


class Options:
    """The options of one question. Its readers return the option's letter or its canonical text, depending on the
    answer type."""

    def __init__(self, choices: Sequence[str], answer_type: AnswerType) -> None:
        self.choices, self.answer_type = choices, answer_type
        self.count = len(choices) or len(ascii_uppercase)
        # Options of one letter are not searched for: "A" is an English word, or another option's letter.
        known = [(_squeezed(text), n) for n, text in enumerate(choices)]
        self.texts = {text: n for text, n in reversed(known) if len(text) > 1 or text.isdigit()}
        self.yes_or_no = set(self.texts) == {"yes", "no"}

    def whole(self, text: str) -> str | None:
        """The option that the whole text names: `B`, `(b)`, `red`, `(B) red`, `B. red`; single letters in either
        case."""
        said = _unwrapped(without_lead_in(unboxed(plain(text))))
        if self._names_two(said):
            return None
        if re.fullmatch(r"\(?[A-Za-z]\)?[.:]?", said):
            return self._lettered(said.strip("().:"))
        squeezed = _squeezed(said)
        if squeezed in self.texts:
            return self._read(self.texts[squeezed])
        if listed := [
            n for text, n in self.texts.items() if "," in text and text.strip("{}()[]") == squeezed.strip("{}()[]")
        ]:
            return self._read(listed[0]) if len(listed) == 1 else None
        if "\n" in said:
            return None
        return self.leading(said) if _LETTER.match(said) else self._equal(said)

    def _equal(self, said: str) -> str | None:
        r"""The only option with the same value: `4` for `$4 \mathrm{~km}$`. Of several, the one with the same unit."""
        value = _value(said) if re.search(r"\d|[\\<>=≤≥√π∞]", said) or in_words(said) is not None else None
        if value is None:
            return None
        unit = _unit(said)
        same = [n for n, text in enumerate(self.choices) if _value(text) == value and not _clash(unit, _unit(text))]
        if len(same) > 1:
            same = [n for n in same if unit and _unit(self.choices[n]) == unit]
        return self._read(same[0]) if len(same) == 1 else self._share(said, value) if not same else None

    def _share(self, said: str, value: str) -> str | None:
        """The only option that is the same share: `0.2` for `20%`, or `20%` for `1/5`."""
        share, is_percentage = number(value), said.endswith("%")
        percentages = [text.replace("$", "").strip().endswith("%") for text in self.choices]
        if share is None or not percentages or not (any(percentages) != is_percentage and len(set(percentages)) == 1):
            return None
        wanted = str(share / 100 if is_percentage else 100 * share)
        same = [n for n, text in enumerate(self.choices) if _value(text) == wanted]
        return self._read(same[0]) if len(same) == 1 else None

    def _names_two(self, said: str) -> bool:
        """Whether a text opens with two letters: `A, C`."""
        two = _TWO.match(said)
        return (
            bool(two) and two is not None and two[1] != two[2] and all(ord(n) - 65 < self.count for n in two.groups())
        )

    def leading(self, text: str) -> str | None:
        """The option at the beginning of a text, by letter or by its text."""
        said = plain(text)
        if self._names_two(said):
            return None
        if letter := _LETTER.match(said):
            return self._lettered(letter[1] or letter[2])
        squeezed = _squeezed(re.sub(r"^(?:the|an?)\s+", "", said.strip(" \n:\"'"), flags=re.IGNORECASE))
        opening = [text for text in self.texts if _mention(text).match(squeezed) and not _goes_on(text, squeezed)]
        if opening:
            return self._read(self.texts[max(opening, key=len)])
        return self._lettered(said[0]) if re.match(r"[A-Z] \S", said) and self._spelled(said) else None

    def stated(self, sentence: str) -> str | None:
        """The only option that a sentence states: in brackets, after its verb, or as the only one it names."""
        said = plain(sentence)
        if self.yes_or_no and (concluded := _SO_YES.search(said)):
            return self._read(self.texts[concluded[1].casefold()])
        if self.yes_or_no and _DENIED.search(said):
            return self._read(self.texts["no"])
        if right := _LETTER_IS_RIGHT.match(said):
            return self._lettered(right[1])
        letters = {letter for letter in _BRACKETED.findall(said) if ord(letter) - 65 < self.count}
        if letters:
            return self._lettered(letters.pop()) if len(letters) == 1 else None
        squeezed = _squeezed(said)
        for after_verb in VERB.split(said)[1:][-1:]:
            if self._names_two(after_verb):
                return None
            clause = re.split(r"[,;.](?:\s|$)", after_verb, maxsplit=1)[0]
            if len(self._named(_squeezed(clause))) < 2 and (
                direct := self.leading(clause) or self._equal(clause.strip())
            ):  # "is red or blue" states neither
                return direct
        named = {self._read(n) for n in self._named(squeezed)}
        return named.pop() if len(named) == 1 else None

    def left(self, text: str) -> str | None:
        """The only option that the end of a text does not exclude."""
        said = plain(text)[-MAX_LEFT:]
        for squeezed in sorted(self.texts, key=len, reverse=True):
            if squeezed not in _IN_PROSE and re.fullmatch(r"[^\W\d_].*[^\W\d_]", squeezed):
                named = rf"(?<!\w)(?:the )?{re.escape(self.choices[self.texts[squeezed]].strip())}(?!\w)"
                said = re.sub(named, f"({ascii_uppercase[self.texts[squeezed]]})", said, flags=re.IGNORECASE)
        letter = remaining(said, self.count)
        return self._lettered(letter) if letter else None

    def _named(self, squeezed: str) -> set[int]:
        """The options that a text names, without those that it denies and those inside a longer named option."""
        found = set()
        for text in sorted(self.texts, key=len, reverse=True):
            if text in _IN_PROSE or re.fullmatch(r"[\d.,/%°+-]*\w?", text):
                continue
            mention = _mention(text).pattern
            if re.search(rf"\bnot (?:the |an? )?{mention}|{mention} (?:is|are|was|were) not\b", squeezed):
                continue
            squeezed, times = _mention(text).subn(" ", squeezed)
            if times:
                found.add(self.texts[text])
        return found

    def _spelled(self, said: str) -> bool:
        """Whether a text is an option's letter without a mark, followed by its text: `C 107`."""
        n = ord(said[0]) - 65
        return n < len(self.choices) and bool(_mention(_squeezed(self.choices[n])).match(_squeezed(said[2:])))

    def _lettered(self, letter: str) -> str | None:
        n = ord(letter.upper()) - 65
        return self._read(n) if n < self.count else None

    def _read(self, n: int) -> str | None:
        return ascii_uppercase[n] if self.answer_type == "choice" else CANONICAL[self.answer_type](self.choices[n])


def _unwrapped(said: str) -> str:
    """The text without quotes or braces around it."""
    if (
        len(said) > 2
        and said[0] + said[-1] in ("''", '""', "“”", "\u2018\u2019", "{}", "[]", "<>", "【】", "⟨⟩", "《》")
        and said[0] not in said[1:-1]
    ):
        return said[1:-1].strip()
    return said


def _value(text: str) -> str | None:
    """An expression without its name and its unit."""
    canonical = as_expression(text)
    maths = formula(canonical).unnamed if canonical else None
    if maths and re.fullmatch(r"\d{1,9}k", maths):
        return maths[:-1] + "000"
    if maths and (items := re.fullmatch(r"\\\{([^{}]*)\\\}", maths)):
        return "{" + ",".join(sorted(items[1].split(","))) + "}"
    if maths and (ratio := re.fullmatch(r"(\d{1,9}):(\d{1,9})", maths)) and int(ratio[2]):
        return f"ratio {Fraction(int(ratio[1]), int(ratio[2]))}"
    return maths


def _unit(text: str) -> Unit | None:
    canonical = as_expression(text)
    return formula(canonical).unit if canonical else None


def _clash(said: Unit | None, option: Unit | None) -> bool:
    return said is not None and option is not None and said.clashes(option)


def _goes_on(text: str, squeezed: str) -> bool:
    """Whether more words follow the option: `no red cups` does not name the option `no`; `no, there are none` does."""
    return text in _IN_PROSE and squeezed[len(text) :][:1] == " "


def _squeezed(text: str) -> str:
    """Lower case, without spaces around symbols and without single braces, so that LaTeX compares by its appearance."""
    said = plain(text).replace("$", "").replace("\\{", "{").replace("\\}", "}").casefold()
    said = re.sub(r"([_^])\{(\w)\}", r"\1\2", said)
    said = re.sub(
        r"(?<=\d)\s?degrees?\b",
        "°",
        re.sub(
            r"(?:between |from )?(?<![\w.])(\d+) (?:to|and) (?=\d)", r"\1-", re.sub(r"(?<=\d),(?=\d{3}\b)", "", said)
        ),
    )
    return _SYMBOLS.sub(r"\1", " ".join(said.split())).strip(" .")


def _mention(squeezed: str) -> re.Pattern[str]:
    """A pattern for an option in a squeezed text, outside longer words, numbers and formulas."""
    before = r"(?<!\w)" if squeezed[0].isalpha() else r"(?<![\w.,+*/^\\-])" if squeezed[0].isdigit() else ""
    if re.match(CJK, squeezed[-1]):  # no spaces part Chinese words
        return re.compile(re.escape(squeezed))
    return re.compile(before + re.escape(squeezed) + r"(?![\w^/+*\\]|-[\d\\]|[.,]\d)")
