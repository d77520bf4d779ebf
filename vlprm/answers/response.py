"""Read the answer of a free response: the one it states, boxes or ends with. Without one the result is None, not a
guess."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from vlprm.answers.conclusion import Conclusion
from vlprm.answers.formula import closing
from vlprm.answers.money import with_currency
from vlprm.answers.options import Options
from vlprm.answers.plain import plain
from vlprm.answers.reader import Reader
from vlprm.answers.tables import answer_cells, only_row
from vlprm.answers.values import READERS
from vlprm.answers.words import refuses, sentence_parts
from vlprm.schema import AnswerType

MAX_LENGTH = 20_000  # characters read from the end of a response, where the conclusion is
MAX_SENTENCE = 2000  # characters read from the end of a sentence
MAX_EXPLICIT = 20  # boxes and announcing phrases read from the end

_CUE = re.compile(
    r"\b(?:answer|option|choice)\b(?:\s+(?:letter|choice|option|value))?(?:\s+(?:to|for|of|in"
    r"|as)\b[^.:\n]{1,80}?)?\s*"
    r"(?:\b(?:is|are|was|(?:will|would|should|must) be)\b\s*:?|[:=\uff1a])"
    r"(?:\s*(?:that|therefore|thus|option|choice)\b)?"
    r"|(?:答案|选项|選項)[】\]]?\s*(?:应该|應該|应|應)?\s*(?:是|约?为|為|[:\uff1a])|(?:选择|選擇|选|選)(?:项|項)?\s*[:\uff1a]?"
    r"(?=\s*\W?[A-Z\uff21-\uff3a])|(?:^|\W)答[:\uff1a]|【答案】|答案\s(?=\W?[A-Z\d])"
    r"|\[(?:final )?answer\]|(?:^|\n)#{1,6} ?(?:the )?(?:final )?answer[^\S\n]*(?=\n)",
    re.IGNORECASE,
)
_CHOSEN = re.compile(
    r"\b(?:answer|option|choice)(?:\s+choice)?\s*"
    r"(?=\([A-Z]\)\s*(?:[.!]|$|as the answer|is (?:the )?(?:correct|right|best)))"
)
# Ends of a turn, and other spellings of boxes.
_MARKS = [
    (re.compile(r"<\|begin_of_box\|>([^<\n]{1,500})<\|end_of_box\|>"), r"\\boxed{\1}"),
    (re.compile(r"\\fbox(?=\s?\{)|\\framebox(?=\s?\{)"), r"\\boxed"),
    (re.compile(r"\\boxed[ \t]+([A-Za-z0-9.,/-]+)"), r"\\boxed{\1}"),
    (re.compile(r"\\boxed\s?\{\s?\}"), " "),
    (re.compile(r"^\s*(?:assistant|model|AI)\s?:", re.IGNORECASE), " "),
    (re.compile(r"<[|\uff5c][\w▁]{1,40}[|\uff5c]>|</s>|<(?:eos|pad|end_of_turn)>|\[(?:EOS|/?INST)\]"), " "),
]
_NAMED_BOX = re.compile(r"(?<![\w\\])([a-zA-Z](?:_\d)?)\s?=\s?\\f?boxed\s*\{$")  # x = \boxed{1}, y = \boxed{2}
_LISTED_ON = re.compile(r"[ ,;&+]*|[^.\n!?]{0,60}\b(?:and|or)\b[^.\n!?]{0,30}")
_TURNED = re.compile(
    r"\b(?:answer|therefore|so|thus|hence|total|sum|final|then|wait|actually|correct|gives?|is|are|equals)\b",
    re.IGNORECASE,
)
_OPENING_TAG = re.compile(r"<(answer|conclusion|final_answer|final|output|result)>", re.IGNORECASE)
_CLOSING_TAG = re.compile(r"</(?:answer|conclusion|final_answer|final|output|result)>", re.IGNORECASE)
# "Answer:" with another label on the next line answers nothing.
_OTHER_LABEL = re.compile(
    r"[*_ ]{0,4}(?!(?:the |final |my )?(?:answer|final|option|choice|solution|result|value))[A-Za-z][A-Za-z ]{1,30}[*_]{0,3}:",
    re.IGNORECASE,
)
_BUT = re.compile(r"not\b[^.;,]{1,60}?,?\sbut\s(?:rather\s)?(?=\S)")  # "not 5 but 6"
_JSON = re.compile(
    r'"(?:final_?)?answer"\s?:\s?(?:"((?:[^"\\\n]|\\.){1,500})"|([-+]?\d[\d.,eE+-]*)(?=\s*[,}]))', re.IGNORECASE
)
_DELIMITER = re.compile(r"\s*(?:\\\[|\\\]|\$\$|`{3,}\w*|\\(?:begin|end)\{[a-z]+\*?\})\s*")
_NOT_THIS = re.compile(r"not\b[^.;,]{0,100}\.?")  # "The answer is not 5."
_COMMENT = re.compile(r"\W{0,4}(?:confidence|certainty|note|disclaimer)\b[^:\n]{0,20}:", re.IGNORECASE)
_FOLLOW_UP = re.compile(r"\n[^\S\n]*(?:Question|Hint|Choices|Human|User|Instruction)\s*:")
_OPTION_LINE = re.compile(r"\s*(?:[-*•]\s+)?(?:Option )?\(?([A-Z])\s?[).:]\s*\S")
_BULLET = re.compile(r"\s*(?:[*•+-]\s|\||\d+[.)]\s+\S)")
_PLEASANTRY = re.compile(r"(?:I hope|I see|Hope|Let me|Is there|Do you|Sure|I understand|Please|Here is|Here are)\b")
_REFUSED = re.compile(
    r"\b(?:cannot|can ?not|can't|unable to|(?:not possible|impossible) to|without|not enough"
    r"|enough information|sorry|none of (?:these|the|them))"
    r"\b|(?:\bnot|n't) (?:able|provided?|clear|valid|available|listed|enough|one of|among)\b",
    re.IGNORECASE,
)
_THEREFORE = re.compile(
    r"(?:Therefore|Thus|So|Hence|Consequently|In conclusion|Overall|In total|It follows that)\b,?", re.IGNORECASE
)
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")


def read_conclusion(said: Conclusion, answer_type: AnswerType, choices: Sequence[str] = ()) -> str | None:
    """The canonical answer in a solution's concluding text, or None. An answer tag announces the answer just as "the
    answer is" does."""
    has_options = bool(choices) or answer_type == "choice"
    reader = _of_options(Options(choices, answer_type)) if has_options else READERS[answer_type]
    if answer_type == "expression" and not has_options:
        said = replace(said, text=with_currency(said.text), more=with_currency(said.more))
    if said.announced:
        return _announced(_body(said.text), reader)
    if said.more:  # text after the answer step may give another answer, or retract this one
        later = _body(said.more)
        if (answer := _announced(later, reader)) is not None:
            return answer
        if said.is_doubted:
            return None
    return _read(_body(said.text), answer_type, reader, after_tag=said.after_tag)


def _read(body: str, answer_type: AnswerType, reader: Reader, after_tag: bool) -> str | None:
    """Explicit answers ("the answer is", a box) come first, the last readable one of several; then the end of the
    response."""
    if not body.strip() or _is_cut(body):
        return None
    bare = "\\boxed" not in body and not _OPENING_TAG.search(body)
    if (
        bare
        and len(body) <= MAX_SENTENCE
        and not (_CUE.search(body) or _JSON.search(body))
        and (answer := reader.whole(body.strip())) is not None
    ):
        return answer
    explicit = [*([body.strip().split("\n", 1)[0]] if after_tag else []), *_explicit(body)]
    if explicit and (not explicit[-1] or refuses(explicit[-1]) or _denies(explicit[-1])):
        return None
    if (answer := _last_read(explicit, reader)) is not None:
        return answer
    if any(map(_definite, explicit)):
        return None
    if answer_type == "list":
        return None if _REFUSED.search(body) else reader.stated(body)
    if (answer := reader.left(body)) is not None:
        return answer
    return _of_row(body, reader) or _closing(body, reader)


def _of_row(body: str, reader: Reader) -> str | None:
    """The only value in the only row of a table at the end."""
    values = {answer for cell in only_row(plain(body)) if (answer := reader.whole(cell)) is not None}
    return values.pop() if len(values) == 1 else None


def _denies(said: str) -> bool:
    return bool(_NOT_THIS.fullmatch(said)) and not _BUT.match(said)


def _is_cut(body: str) -> bool:
    """Whether the last box is cut off; an earlier box is then not the answer."""
    last = body.rfind("\\boxed{")
    if last < 0 or closing(body[last + 6 : last + 1006], "{}"):
        return False
    return "\\boxed{" in body[:last] or not re.search(r"[}$\n]|\.\s", body[last + 7 :])


def _announced(body: str, reader: Reader) -> str | None:
    return _last_read(_explicit(body), reader)


def _last_read(explicit: Sequence[str], reader: Reader) -> str | None:
    return next((answer for said in reversed(explicit) if (answer := _of_explicit(said, reader)) is not None), None)


def _of_options(options: Options) -> Reader:
    return Reader(options.whole, options.leading, options.stated, options.left)


def _body(text: str) -> str:
    """The response without thoughts, further questions and repeated options."""
    said = text[-MAX_LENGTH:]
    for mark, by in _MARKS:
        said = mark.sub(by, said)
    if not _OPENING_TAG.search(said):
        said = _CLOSING_TAG.sub(" ", said)
    if (follow_up := _FOLLOW_UP.search(said)) and said[: follow_up.start()].strip():
        said = said[: follow_up.start()]
    return "\n".join(_without_repeated_options(said.split("\n")))


def _without_repeated_options(lines: list[str]) -> list[str]:
    """Drop lines that list options: two or more with successive letters."""
    letters = [found[1] if (found := _OPTION_LINE.match(line)) else "" for line in lines]
    listed = set()
    for n in range(len(lines) - 1):
        if letters[n] and letters[n + 1] and ord(letters[n + 1]) - ord(letters[n]) == 1:
            listed |= {n, n + 1}
    return [line for n, line in enumerate(lines) if n not in listed]


def _explicit(body: str) -> list[str]:
    """The contents of boxes and of `<answer>`, and the text after announcing words, in text order. A text is empty if
    another label follows the announcing words."""
    said = plain(body)
    found = _together(said, _boxed(said))
    found += _between_tags(said)
    found += answer_cells(said)
    found += [(value.start(), _unescaped(value[1]) or value[2]) for value in list(_JSON.finditer(body))[-MAX_EXPLICIT:]]
    for cue in (*_CUE.finditer(said), *_CHOSEN.finditer(said)):
        rest = said[cue.end() : cue.end() + 500].lstrip(" *:")
        line = rest.lstrip().split("\n", 1)[0].strip()
        if rest[:1] == "\n" and _OTHER_LABEL.match(line):
            found.append((cue.end(), ""))
        elif line and (rest[:1] != "\n" or not _BULLET.match(line)):  # not "how I found the answer:" before a list
            found.append((cue.end(), line))
    return [text.strip() for _, text in sorted(found)[-MAX_EXPLICIT:]]


def _unescaped(text: str | None) -> str:
    try:
        return str(json.loads(f'"{text or ""}"'))
    except ValueError:
        return text or ""


def _between_tags(said: str) -> list[tuple[int, str]]:
    """The text between `<answer>` and `</answer>`, which may contain `<`. Without an end it is the rest of the line."""
    opened = [(tag.start(), tag.end(), tag[1]) for tag in _OPENING_TAG.finditer(said)][-MAX_EXPLICIT:]
    ends = [(start, said.lower().find(f"</{name.lower()}>", end, end + 2000), end) for start, end, name in opened]
    if len(ends) == 1 and ends[0][1] < 0 and "\n" not in said[ends[0][2] :].strip():
        return [(ends[0][0], said[ends[0][2] :].strip())]
    return [(start, said[after:end].strip()) for start, end, after in ends if end >= 0 and said[after:end].strip()]


def _boxed(said: str) -> list[tuple[int, int, str]]:
    """Start, end and content of the last boxes with closed braces."""
    found = []
    starts = [m.end() for m in re.finditer(r"\\f?boxed\s*\{", said)]
    for start in starts[-MAX_EXPLICIT:]:
        if end := closing(said[start - 1 : start + 1000], "{}"):
            found.append((start, start + end, said[start : start - 1 + end]))
    return found


def _together(said: str, boxes: Sequence[tuple[int, int, str]]) -> list[tuple[int, str]]:
    r"""The contents of boxes; listed boxes such as `\boxed{1} and \boxed{2}` are one answer."""
    found: list[tuple[int, list[str]]] = []
    last_end = 0
    for start, end, content in boxes:
        if start < last_end:  # a box in a box
            found[-1] = (start, [content])
            continue
        named = _NAMED_BOX.search(said[max(0, last_end, start - 40) : start])
        content = f"{named[1]}={content}" if named and len(boxes) > 1 else content
        gap = said[last_end : said.rfind("\\", last_end, start)] if found else ""
        gap = gap[: -len(named[0])] if named and gap.endswith(named[0].split("\\boxed")[0]) else gap
        if found and _LISTED_ON.fullmatch(gap) and not _TURNED.search(gap):
            found[-1] = (start, found[-1][1] + [content] * (content not in found[-1][1]))
        else:
            found.append((start, [content]))
        last_end = end
    return [(start, ", ".join(contents)) for start, contents in found]


def _of_explicit(said: str, reader: Reader) -> str | None:
    said = _BUT.sub("", said) if _BUT.match(said) else said
    if re.match(r"not\b", said):
        return None
    for read in (reader.whole, reader.leading):
        if (answer := read(said)) is not None:
            return answer
    return None if _definite(said) else reader.stated(_sentences(said)[0] if _sentences(said) else said)


def _definite(said: str) -> bool:
    """Whether the text gives a value, even of another type, so that weaker evidence must not replace it."""
    return bool(re.match(r"[-+$]?\d|\\[a-z]", said))


def _closing(body: str, reader: Reader) -> str | None:
    """The answer in the last line, in a last "therefore", or in the only bold text; otherwise in the first or last
    sentence. If the response says that it cannot answer or that no option fits, it must close with an answer."""
    lines = [line for line in body.splitlines() if line.strip() and not _COMMENT.match(line)]
    lines = [line for line in lines if not _DELIMITER.fullmatch(line)] or lines
    sentences = [s for line in lines if not _BULLET.match(line) for s in _sentences(line)]
    if not sentences:
        return None
    refused = bool(_REFUSED.search(body))
    last = next((line.strip() for line in reversed(lines) if not _PLEASANTRY.match(line.strip())), lines[-1])
    concluded = next((s for s in reversed(sentences) if _THEREFORE.match(s)), "")
    is_last = concluded == sentences[-1]
    answer = None if _BULLET.match(last) else reader.whole(last)
    if answer is None and not _REFUSED.search(concluded) and (is_last or not refused):
        answer = reader.stated(concluded)
    bold = {b for b in map(reader.whole, _BOLD.findall(body)) if b is not None}
    if answer is None and len(bold) == 1 and not refused:
        answer = bold.pop()
    # An unreadable "so, ..." at the end outweighs a readable sentence before it.
    return answer or (None if is_last or refused else _first_or_last(sentences, reader))


def _first_or_last(sentences: list[str], reader: Reader) -> str | None:
    """The answer that the first or the last sentence states; None if they differ, or if the last one has other
    numbers."""
    first = reader.stated(sentences[0])
    if re.match(r"(?:yes|no)\b", sentences[0], re.IGNORECASE):
        first = reader.leading(sentences[0]) or first
    last = reader.stated(sentences[-1])
    if first and first[-1].isdigit() and last is None and re.search(r"\d", sentences[-1]):
        return None
    return None if first and last and first != last else first or last


def _sentences(line: str) -> list[str]:
    """The sentences of a line, without questions."""
    parts = [part[-MAX_SENTENCE:] for part in sentence_parts(line)]
    return [
        part
        for part in parts
        if part and not part.endswith("?") and not (_PLEASANTRY.match(part) and "\\begin" not in part)
    ]
