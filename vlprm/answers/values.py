"""Readers for numbers, expressions, lists and words."""

from __future__ import annotations

import re
from functools import partial
from string import ascii_letters

from vlprm.answers.canonical import CANONICAL, as_expression, as_list
from vlprm.answers.clock import leading_time, only_time
from vlprm.answers.formula import maths_list
from vlprm.answers.number_words import WORDS, in_words
from vlprm.answers.plain import CJK, NUMBER, VERB, decimal_comma, number, plain
from vlprm.answers.quantities import mixed, mixed_in
from vlprm.answers.reader import Read, Reader
from vlprm.answers.units import scaled
from vlprm.answers.words import without_lead_in, words
from vlprm.schema import AnswerType

MAX_VERBS = 16  # verbs read per sentence, from its end
MAX_VALUE = 500  # characters searched for the value after a verb
_TIMES = r"(?:\s(?i:dozen|hundred|thousand|lakh|million|mln|mn|crore|billion|bn|trillion)\b|(?<=\d)[kKMB]\b)?"
_ABOUT = re.compile(r"^(?:(?:approximately|about|around|roughly|exactly|only)\b|\\approx(?![A-Za-z])|[≈~])\s*")
_OTHER = "another kind of number"
# Excludes ordinals (2nd), parts of names (R1, 8-directional), bounds (at least 60), totals (three of the five) and
# factors (1/2 the area).
_MIXED = r"[+-]?\d+ \d+\s?/\s?\d+|[1-9]\d{0,2}(?: \d{3})+(?!\d)(?:\.\d+)?"  # 2 1/2 and 25 000
_TOKEN = re.compile(
    r"(?i:(?<!\bof the )(?<!\bout of )(?<!\bat least )(?<!\bat most )(?<!\bthan ))"
    rf"(?<![\w.,])(?>{_MIXED}|{NUMBER}|(?i:{WORDS})){_TIMES}(?!\d|(?:st|nd|rd|th)\b|-[A-Za-z]|,\d|\.\d|\s+the\b)"
)
_DECIMAL_COMMA = re.compile(r"(?<![\w.,(\[])\d+,\d\d(?![\w,)\]]|\.\d)")  # 2,74: neither thousands nor a likely list
_OPERATOR = re.compile(r"\s*(?:[+*/\u00d7·^÷-]\s*[\d(\\]|\\times|\\cdot|(?:or|and|to|out of)\s+\S|=)")
# 4.5 V, and a current of 2 A
_ANOTHER = re.compile(rf"\b(?:and|or)\s+(?:\w+ ){{0,2}}(?:\d|{WORDS})")
_SECOND = re.compile(rf"(?:\s[A-Za-z]+){{1,3}}\s(?:and|or)\s(?:\w+\s){{0,2}}(?:\d|{WORDS})")  # 7 dogs and 3 cats
_PROSE = r"(?<![\\A-Za-z])(?!(?:sqrt|sin|cos|tan|log|ln|exp|pi)\b)[A-Za-z]"
_RESULTING = re.compile(
    r"\bwhich (?:is|are|was|were|equals|gives?|makes?|yields?)\b[^\d]*$|\b(?:making|giving)\b[^\d]*$"
)
_BRACKETS = re.compile(r"\s\([^()]{1,100}\)")  # 5 apples (3 red and 2 green)
_NONE_OF = re.compile(
    r"\W*(?:so|therefore|thus|hence)?,?\s*there are no (?!details|numbers|labels|options|signs|indications)(?:[\w-]+ ){1,4}?"
    r"(?:in|on|at|visible|shown|present|left)\b[^.;\n]{0,60}",
    re.IGNORECASE,
)
_MATRICES = re.compile(r"\\begin\{[a-z]*(?:matrix|array)\}.*\\end\{[a-z]*(?:matrix|array)\}", re.DOTALL)
_RELATION = re.compile(r"[<>≤≥≠]|!=|\\(?:leq?|geq?|neq?|lt|gt|in)(?![A-Za-z])")
_MATHS = re.compile(r"\$([^$\n]{2,300})\$")  # a number within it is not the answer
_LISTED = re.compile(r"(?<!\\)\[[^\[\]\n]{1,400}\]")
_BETWEEN = re.compile(r"\b(?:between|from)\s+(?:the\s+years?\s+)?(\d[\d.]*)\s+(?:and|to)\s+(\d[\d.]*)\b")


_DENIED = re.compile(r"\s*not\b")


def direct(text: str, leading: Read) -> list[tuple[bool, str]]:
    """The value right after each verb or equals sign of a sentence, and whether it ends a chain: it follows an
    equals sign, "which is" or "making"."""
    return [
        ("=" in verb[0] or "≈" in verb[0] or bool(_RESULTING.search(text[: verb.end()])), value)
        for verb in list(VERB.finditer(text))[-MAX_VERBS:]
        if (value := leading(text[verb.end() : verb.end() + MAX_VALUE])) is not None
    ]


def settled(found: list[tuple[bool, str]]) -> str | None:
    """The end of a chain of equalities; or, if the last value follows a verb, the value if all verbs have the same
    one."""
    if found and found[-1][0]:
        return found[-1][1]
    values = {value for is_equality, value in found if not is_equality}
    return values.pop() if len(values) == 1 else None


def _form(answer_type: AnswerType, token: str) -> str:
    base, factor, _ = scaled(token, letters="kKMB")
    value = number(base)
    value = in_words(token) if value is None else value * factor
    if value is None or (answer_type == "integer" and value.denominator != 1):
        return _OTHER
    return CANONICAL[answer_type](str(value)) or _OTHER


def _number_whole(answer_type: AnswerType, text: str) -> str | None:
    if mixed(plain(text).strip()):  # 1 h 30 min is neither 1 nor 30
        return None
    said = _ABOUT.sub("", plain(text).strip().rstrip(".;,").lstrip("=: "))
    sum_of, equals, total = said.rpartition("=")
    if equals and not re.search(_PROSE + "{3,}", sum_of) and re.search(r"\d", sum_of):  # 5 + 12 = 17
        return _number_whole(answer_type, total)
    if answer_type == "float" and (value := decimal_comma(said)) is not None:
        return CANONICAL["float"](str(value))
    token = _TOKEN.match(said)
    # A unit of up to three words may follow.
    if not token or not re.fullmatch(
        r"\s*(?!(?:or|and|to|of|out|than|vs)\b|.*\b(?:and|or)\s+\d)(?:[%°]|(?:[A-Za-zµΩ/^\d{}\u4e00-\u9fff]+(?:\s+[A-Za-zµΩ/^\d{}]+){0,2})?)\s*",
        said[token.end() :],
    ):
        return None
    return _known(_form(answer_type, token[0]))


def _number_leading(answer_type: AnswerType, text: str) -> str | None:
    said = plain(text).lstrip(" :\n\"'(")
    said = re.sub(r"^[a-z]\s?=\s*", "", _ABOUT.sub("", said))
    if mixed(said):
        return _OTHER
    token = _TOKEN.match(said)
    if not token or _OPERATOR.match(said, token.end()) or _SECOND.match(said, token.end()):
        return None
    return _form(answer_type, token[0])


def _number_stated(answer_type: AnswerType, text: str) -> str | None:
    # In an unannounced answer, "million" is mostly the unit of an axis, which the question already assumes.
    said = re.sub(r"(?<=\d) (?:million|billion|trillion)\b", "", plain(text))
    if _NONE_OF.fullmatch(said.strip().rstrip(".")):
        return "0"
    if found := direct(said, partial(_number_leading, answer_type)):
        return None if _ANOTHER.search(_BRACKETS.sub("", VERB.split(said)[-1])) else _known(settled(found))
    named = {_form(answer_type, token) for token in _TOKEN.findall(said) if token.casefold() != "one"}
    if not named and len(commas := _DECIMAL_COMMA.findall(said)) == 1:
        return _known(_form(answer_type, commas[0].replace(",", ".")))
    return _known(named.pop()) if len(named) == 1 else None


def _known(value: str | None) -> str | None:
    return None if value == _OTHER else value


def _numbers(answer_type: AnswerType) -> Reader:
    leading = partial(_number_leading, answer_type)
    return Reader(
        partial(_number_whole, answer_type), lambda text: _known(leading(text)), partial(_number_stated, answer_type)
    )


def _expression_whole(text: str) -> str | None:
    """Mathematics with a unit of at most three words, or a single word."""
    if declared := re.fullmatch(r"[\s$]*\\text\s?\{([^{}]{1,200})\}[\s$.]*", text):
        return as_expression(declared[1])
    said = without_lead_in(plain(text)).strip('"\u201c\u201d ')
    said = re.sub(r"^(?:[Aa]s|[Ii]s)\s+(?=\S*[\d\\^+=])", "", said)
    if "\n" in said or said.endswith("?") or re.search(f"{CJK}{{2}}.*[=\\d]|{CJK}\\\\", said):
        return None
    if _quantity(said.rstrip(".")):
        return as_expression(said)
    if _lists(said):
        return as_expression(said)
    prose = re.findall(_PROSE + "{3,}", said)
    if len(prose) > 3:
        return None
    if not prose or said.rstrip(".") == prose[0]:
        return as_expression(said)
    unit = re.fullmatch(r"[A-Za-z\s]*(?:\^\{?\d\}?)?\.?", _up_to_prose(said)[1])
    return _expression_leading(said) if unit and said[0] not in ascii_letters else None


def _quantity(said: str) -> bool:
    """Whether a text is only a quantity in two units."""
    found = mixed(said)
    return found is not None and not said[found[3] :].strip(" .")


def _expression_leading(text: str) -> str | None:
    said = plain(text).lstrip(' :\n"\u201c')
    if found := mixed(said):
        return as_expression(said[: found[3]])
    if time := leading_time(said):
        return time
    sentence = re.split(r"\.(?:\s|$)|\n|\.(?=[A-Z])", said, maxsplit=1)[0]
    if _lists(sentence):
        return as_expression(sentence)
    if scaled := re.match(r"[\d.,]+(?:\s(?:dozen|hundred|thousand|million|billion|trillion)\b|k\b)", sentence):
        return as_expression(scaled[0])
    maths, prose = _up_to_prose(sentence)
    if re.match(r"(?:and|or|the)\b", prose) or not re.match(r"[-+(\[{|\\\d.]|[A-Za-z](?![A-Za-z])", maths):
        return None
    return as_expression(maths) if len(maths) > 1 or maths.isdigit() or not prose else None  # "is a circle"


def _up_to_prose(sentence: str) -> tuple[str, str]:
    cut = re.search(rf"[,;:]?\s+(?={_PROSE}{{2,}})", sentence)
    return (sentence[: cut.start()], sentence[cut.end() :]) if cut else (sentence, "")


def _expression_stated(text: str) -> str | None:
    said = plain(text)
    for verb in list(VERB.finditer(said))[-MAX_VERBS:]:
        if "=" not in verb[0] and _lists(listed := re.split(r"\.(?:\s|$)|\n", said[verb.end() :], maxsplit=1)[0]):
            return as_expression(listed)
    quantities, around = mixed_in(said)
    if found := direct(said, _expression_leading):
        return None if _ANOTHER.search(mixed_in(VERB.split(said)[-1])[1]) else settled(found)
    if quantities:
        return as_expression(quantities[0]) if len(quantities) == 1 and not re.search(r"\d", around) else None
    if time := only_time(said):
        return time
    if matrices := _MATRICES.search(said):
        return as_expression(matrices[0])
    if _RELATION.search(said):  # its number is a bound and not the answer
        spans = [span for span in _spans(said) if _RELATION.search(span)]
        return as_expression(spans[0]) if len(spans) == 1 else None
    return _number_stated(
        "expression", _MATHS.sub(lambda found: found[0] if number(found[1]) is not None else " ", text)
    )


def _lists(said: str) -> bool:
    """Whether a text is only a list of mathematics joined by `and` or `or`."""
    items = maths_list(said)
    return 1 < len(items) < 20 and all(item.strip() and not re.search(_PROSE + "{2,}", item) for item in items)


def _spans(sentence: str) -> list[str]:
    """The mathematical parts of a sentence."""
    return [span.strip(" ,;:.") for span in re.split(rf"{_PROSE}{{2,}}", sentence)]


def _list_stated(text: str) -> str | None:
    if listed := _LISTED.findall(text):
        return as_list(listed[-1])
    pairs = set(_BETWEEN.findall(text))
    if pairs:
        return as_list(", ".join(pairs.pop())) if len(pairs) == 1 else None
    after_verb = VERB.split(text.strip())
    is_one_sentence = len(after_verb) == 2 and not re.search(r"\n|[.!?]\s", text.strip())
    return _list_whole(after_verb[1].strip(" .")) if is_one_sentence and not _DENIED.match(after_verb[1]) else None


def _list_whole(text: str) -> str | None:
    said = re.sub(r"(?<=[\w'\"]),?\s+and\s+(?=[\w'\"])", ", ", plain(text).strip())
    said = re.sub(r"\\(?=[{}])", "", said if "," in said else said.replace(";", ","))
    short = all(len(item.split()) < 4 for item in said.split(","))
    return as_list(said) if short and "\n" not in said else None


READERS: dict[AnswerType, Reader] = {
    "integer": _numbers("integer"),
    "float": _numbers("float"),
    "expression": Reader(_expression_whole, _expression_leading, _expression_stated),
    "list": Reader(_list_whole, _list_stated, _list_stated),
    "word": words("word"),
    "text": words("text"),
}
