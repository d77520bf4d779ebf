"""Times of day: `3:15 PM`, `3:15 p.m.` and `15:15` are one time. `3:15` alone may be a ratio, or a time without its
half of the day."""

from __future__ import annotations

import re

_TIME = (
    r"(\d{1,2})(?:[:.]([0-5]\d)(?::([0-5]\d))?)?\s?(?:([AaPp])(?:\.\s?[Mm](?:\.|\b)|[Mm]\b\.?)|(?i:(noon|midnight))\b)"
)
_WITH_HALF = re.compile(rf"(?<![\w.:,$/]){_TIME}")
_WITHOUT = re.compile(r"(\d{1,2}):([0-5]\d)(?::([0-5]\d))?(?:\s?(?:h|hrs|hours))?")
_NAMED = {"noon": 12 * 3600, "midday": 12 * 3600, "midnight": 0}
_ANY_DIGIT = re.compile(r"\d")


def time_of_day(text: str) -> str | None:
    """`3:15 pm` for a text that is a time with its half of the day, in any spelling."""
    said = text.strip().rstrip(".")
    if said.casefold() in _NAMED:
        return _written(_NAMED[said.casefold()])
    found = _WITH_HALF.fullmatch(text.strip()) or _WITH_HALF.fullmatch(said)
    seconds = _seconds(found) if found else None
    return None if seconds is None else _written(seconds)


def on_24_hours(text: str) -> str | None:
    """`3:15 pm` for `15:15`, and for any other time that can only be one of 24 hours."""
    seconds = _of_24(text)
    return None if seconds is None else _written(seconds)


def same_time(said: str, right: str) -> bool | None:
    """Whether two texts are the same time of day; None if neither has its half of the day, so that they may be
    ratios."""
    times = time_of_day(said), time_of_day(right)
    if times == (None, None):
        return None
    full = times[0] or on_24_hours(said), times[1] or on_24_hours(right)
    return full[0] is not None and full[0] == full[1]


def leading_time(text: str) -> str | None:
    """The time of day, with its half, that a text opens with."""
    found = _WITH_HALF.match(text)
    return time_of_day(found[0]) if found else None


def only_time(sentence: str) -> str | None:
    """The time of day, with its half, in a sentence that has no other number."""
    found = [match for match in _WITH_HALF.finditer(sentence) if _seconds(match) is not None]
    if len(found) != 1 or _ANY_DIGIT.search(sentence[: found[0].start()] + sentence[found[0].end() :]):
        return None
    return time_of_day(found[0][0])


def _seconds(found: re.Match[str]) -> int | None:
    hour = int(found[1])
    half = (found[4] or "").casefold() or {"noon": "p", "midnight": "a"}[found[5].casefold()]
    if hour > 23 or (hour == 0 and half == "p") or (hour > 12 and half == "a") or (found[5] and hour != 12):
        return None
    hour = hour % 12 + 12 * (half == "p") if hour <= 12 else hour
    return hour * 3600 + int(found[2] or 0) * 60 + int(found[3] or 0)


def _of_24(text: str) -> int | None:
    found = _WITHOUT.fullmatch(text.strip().rstrip("."))
    if not found or not (12 < int(found[1]) < 24 or int(found[1]) == 0):
        return None
    return int(found[1]) * 3600 + int(found[2]) * 60 + int(found[3] or 0)


def _written(seconds: int) -> str:
    hour, rest = divmod(seconds, 3600)
    minutes = f"{rest // 60:02}" + (f":{rest % 60:02}" if rest % 60 else "")
    return f"{(hour - 1) % 12 + 1}:{minutes} {'p' if hour >= 12 else 'a'}m"
