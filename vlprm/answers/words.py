"""Readers for words as answers: phrases that introduce an answer, refusals, and where the answer ends."""

from __future__ import annotations

import re
from functools import partial

from vlprm.answers.canonical import CANONICAL
from vlprm.answers.plain import plain, unboxed
from vlprm.answers.reader import Reader
from vlprm.schema import AnswerType

MAX_WORDS = 5
_OPEN, _CLOSE = "\"'“\u2018«(", "\"'”\u2019»)"

_HEDGE = (
    r"so|thus|hence|therefore|then|and|but|well|okay|ok|consequently|overall|finally|probably|maybe|"
    r"perhaps|likely|possibly|definitely|certainly|(?:most|very|quite) (?:likely|probably)|indeed|"
    r"clearly|obviously|apparently|surely|yes|in conclusion|in total|in fact|in short|of course|"
    r"(?:i|we) (?:think|believe|guess|say|get|have|obtain|find|need|see|know|conclude)(?: that)?|"
    r"(?:i|we)(?:'d| would| can) (?:say|guess|go with|see|conclude)(?: that)?|(?:i'm|i am) (?:sure|certain|"
    r"confident)(?: that)?|"
    r"my (?:guess|answer|best guess) is|(?:the )?(?:final |correct |right )?answer(?: is|'s)?|"
    r"it (?:seems|appears|follows)(?: that)?(?! to be\b)"
)
# Labels and arrows before an answer.
_LABEL = re.compile(
    r"(?:[-=]>|[→⇒])\s*|(?:a|ans|answer|result|response|output|colou?r|shape|object|name)\s?[.:]\s+(?=\S)",
    re.IGNORECASE,
)
# Words after an answer that only say how sure it is.
_TAIL = re.compile(
    r",\s+(?:i (?:think|guess|believe|suppose)|probably|most likely|likely|of course|it is|it seems|for sure|as (?:shown|"
    r"seen|stated|indicated|mentioned)\b.*|(?:which|because|since|based on|according to)\s.*)$|,\s+(?:the|an?)\s(?:[\w-]+\s){1,3}(?:of|in|that|who|which)\s[^,]*$|\s\(not [^()]*\)$",
    re.IGNORECASE,
)
_IS = r"(?:'s|\u2019s|'re|\u2019re| is| are| was| were)"
_SUBJECT = (
    rf"(?:it|that|this|they|these|those|there|he|she|both|all|(?:both|all|each) of (?:them|these)){_IS}|"
    r"(?:it|that|this|he|she) (?:(?:seems|appears) to be|looks|seems|appears|"
    rf"means|equals|must be|"
    r"would be|should be|will be|can be)|they (?:(?:seem|appear) to be|look|seem|appear)"
)
_AFTER = (
    r"(?:\s+(?:just|simply|probably|most likely|likely|clearly|definitely|indeed|actually|therefore|thus|"
    r"to be|like)\b)*"
)
_LEAD_IN = re.compile(
    rf"(?:(?:{_HEDGE})(?:\s*[,:]|\s+[-\u2013\u2014](?=\s)|(?=\s))|(?:{_SUBJECT}){_AFTER}(?=\s))\s*:?\s*", re.IGNORECASE
)
# The subject and verb of "The missing colour is red".
_OF_SOMETHING = re.compile(
    rf"(?:the|its|their|this|that|these|those|his|her|my|our|your)\s(?:[\w'\u2019-]+\s){{1,6}}?(?:is|are|"
    rf"was|were|says|reads|shows|displays|states|looks|seems|appears)\b(?! (?:not|no)\b)"
    rf"{_AFTER}\s*:?\s*",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"(?:the|an?)\s+", re.IGNORECASE)
_REFUSAL = re.compile(
    r"(?:unknown|unclear|unsure|uncertain|undetermined|indeterminate|unanswerable|undefined answer|"
    r"n/?a\.?|n\.a\.?|not applicable|not available|"
    r"not (?:sure|certain|clear|known|given|specified|visible|possible|enough .*)|no (?:idea|clue|answer\b.*)|"
    r"idk|dunno|null|none given|"
    r"hard to (?:say|tell)|impossible to (?:say|tell|know|determine)|insufficient .*|(?:i |we |it |one |"
    r"you |the answer )?"
    r"(?:really |honestly |just )?(?:do not|don't|don\u2019t|cannot|can not|can't|can\u2019t|could not|"
    r"couldn't|am not|am unable|are not|is not|isn't|was not) ?"
    r"(?:really )?(?:be )?(?:know|knowing|sure|certain|tell|say|determined?|answer(?:ed)?|see|read|clear|"
    r"known|possible|able|given|provided|"
    r"to (?:see|tell|determine|answer|say))\b.*|(?:i'm|i\u2019m|i am|we're|we are) (?:not|un)\b.*|(?:i'm|"
    r"i\u2019m|i am) (?:unsure|uncertain|unable|sorry)\b.*|sorry\b.*|"
    r"(?:unable|failed) to .*|(?:there is |there's )?no way (?:to|of) .*|no (?:image|picture|information|data)\b.*|"
    r"(?:i |we )?(?:would )?need (?:more|further|additional) .*|(?:more|further|additional) information\b.*|"
    r"(?:can|could|please|would) (?:you )?(?:provide|share|upload|clarify)\b.*|"
    r"(?:the |this |that )?(?:image|picture|photo|figure|text|question|it) (?:does not|doesn't|did not) .*|"
    r"(?:\S+ ){1,6}(?:is|are|was|were)(?: not|n't) (?:visible|shown|given|specified|provided|clear|known|legible|"
    r"readable|mentioned|stated|available|determined)\b.*|"
    r"我?(?:不知道|不确定|不清楚|无法\S*|無法\S*|未知|没有答案|看不清\S*|答不出\S*)。?)",
    re.IGNORECASE,
)
_ABBREVIATIONS = (
    *("St Dr Mr Ms Mt Jr Sr No vs Ft ft Co", "Mrs Gen Sgt Inc Ltd Ave Rev Hon Jan Feb Apr Jun Jul Aug Sep Oct Nov Dec"),
    *("e.g i.e a.m p.m", "Prof Corp Blvd Capt Sept"),
)
# A full stop does not end a sentence after an abbreviation or a single capital.
_NO_END = [
    *(rf"(?<!\b(?:{'|'.join(map(re.escape, names.split()))}){{}})" for names in _ABBREVIATIONS),
    r"(?<!\b[A-Z]{})",
]
_STOP = "".join(name.replace("{}", "") for name in _NO_END) + r"\."
_AFTER_STOP = "".join(name.replace("{}", r"\.") for name in _NO_END)
SENTENCE_END = re.compile(rf"(?:{_STOP}|[!?])(?:\s|$)|;(?:\s|$)|\n")
_BETWEEN = re.compile(rf"(?<=[.!?]){_AFTER_STOP}\s+(?=[A-Z(\\$*])")
_CLAUSE = re.compile(
    r",?\s+(?:because|since|although|though|whereas|which|so that)\b|,\s*(?:as|so|but|while|where|who|i|"
    r"it|we|they|he|she|you|this|"
    r"that|there|the|an?|not|based|given|for|with|according|meaning|making|therefore|thus|then|hence)\b",
    re.IGNORECASE,
)


def without_lead_in(text: str) -> str:
    """A sentence without its introduction, such as "So it is" or "I think"."""
    said = text.strip()
    for _ in range(4):
        lead = _LABEL.match(said) or _LEAD_IN.match(said)
        if not lead or not said[lead.end() :].strip(" .!"):
            return said
        said = said[lead.end() :].lstrip(" ,:")
    return said


def refuses(text: str) -> bool:
    """Whether a short text says that the question cannot be answered."""
    return bool(_REFUSAL.fullmatch(text.strip().rstrip(".! \u3002")))


def sentence_parts(line: str) -> list[str]:
    """Split a line into sentences; the full stop of an abbreviation does not end one."""
    return _BETWEEN.split(_after_maths(line))


def _after_maths(line: str) -> str:
    """Move the full stop of a displayed formula behind its closing delimiter."""
    return re.sub(r"([.!?])(\$\$|\\\])(?=\s)", r"\2\1", line.strip())


def _words_whole(answer_type: AnswerType, text: str) -> str | None:
    said = unboxed(plain(text)).strip()
    if "\n" in said or ((end := SENTENCE_END.search(said)) and said[end.end() :].strip()):
        return None
    return _form(answer_type, said)


def _words_leading(answer_type: AnswerType, text: str) -> str | None:
    said = unboxed(plain(text).lstrip(" :\n"))
    if quoted := re.match(r"[\"“]([^\"”\n]{1,80})[\"”]", said):
        return _form(answer_type, quoted[1])
    return _form(answer_type, _CLAUSE.split(SENTENCE_END.split(said, maxsplit=1)[0], maxsplit=1)[0])


def _form(answer_type: AnswerType, text: str) -> str | None:
    """The answer in a short text, without its introduction."""
    said = text.strip().rstrip("!;,. ")
    if refuses(said) or said.endswith(("?", ":")) or not re.search(r"\w", said):
        return None
    said = without_lead_in(_TAIL.sub("", said))
    if found := _OF_SOMETHING.match(said):
        said = said[found.end() :]
    said = _ARTICLE.sub("", said, count=1) if _ARTICLE.match(said) else said
    said = _unquoted(said.strip().rstrip("!;,. "))
    if answer_type == "word" and re.search(r"\bor\b", said, re.IGNORECASE):  # two answers
        return None
    return CANONICAL[answer_type](said) if 0 < len(said.split()) <= MAX_WORDS and not refuses(said) else None


def _unquoted(said: str) -> str:
    """The text without quotes or brackets around it."""
    while len(said) > 2 and said[0] in _OPEN and said[-1] == _CLOSE[_OPEN.index(said[0])] and said[0] not in said[1:-1]:
        said = said[1:-1].strip()
    return said


def words(answer_type: AnswerType) -> Reader:
    """The reader for answers of at most MAX_WORDS words."""
    return Reader(partial(_words_whole, answer_type), partial(_words_leading, answer_type), lambda text: None)
