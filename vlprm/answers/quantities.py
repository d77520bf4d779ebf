"""Sizes of units: `120 min` is `2 h`, and `1 h 30 min` is one quantity in two units."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise

from vlprm.answers.number_words import WORDS, in_words
from vlprm.answers.plain import number
from vlprm.answers.units import unit_name

MAX_LENGTH = 100  # characters of a quantity
Kind = tuple[tuple[str, int], ...]  # kinds of units with their powers: (("length", 1), ("time", -1)) for a speed

# One kind of unit per line: the name of each unit and its size in one of them.
_SIZES = """
time ms:1/1000 s:1 min:60 h:3600 day:86400 week:604800
years month:1 year:12 decade:120 century:1200
length nm:1/1000000000 µm:1/1000000 mm:1/1000 cm:1/100 dm:1/10 m:1 km:1000 in:127/5000 ft:381/1250 yd:1143/1250 mi:201168/125
mass mg:1/1000 g:1 kg:1000 oz:45359237/1600000 lb:45359237/100000 pound:45359237/100000
volume pint:2 cup:1 qt:4 gal:16
dollars cent:1 dollar:100
sterling penny:1 gbp:100
euros eurocent:1 euro:100
energy J:1 kJ:1000 MJ:1000000 Wh:3600 kWh:3600000
heat cal:1 kcal:1000
power mW:1/1000 W:1 kW:1000 MW:1000000 GW:1000000000
voltage mV:1/1000 V:1 kV:1000
current mA:1/1000 A:1
resistance Ω:1 kΩ:1000
frequency Hz:1 kHz:1000 MHz:1000000 GHz:1000000000
pressure Pa:1 kPa:1000 MPa:1000000 GPa:1000000000
force N:1 kN:1000
"""
_UNITS: dict[str, tuple[Kind, Fraction]] = {
    name: (((kind, 1),), Fraction(size))
    for kind, *units in map(str.split, _SIZES.strip().splitlines())
    for name, size in (unit.split(":") for unit in units)
}
_UNITS |= {
    "mL": ((("length", 3),), Fraction(1, 10**6)),
    "ml": ((("length", 3),), Fraction(1, 10**6)),
    "cc": ((("length", 3),), Fraction(1, 10**6)),
    "cl": ((("length", 3),), Fraction(1, 10**5)),
    "L": ((("length", 3),), Fraction(1, 1000)),
    "ha": ((("length", 2),), Fraction(10**4)),
    "kph": ((("length", 1), ("time", -1)), Fraction(5, 18)),
    "mph": ((("length", 1), ("time", -1)), Fraction(201168, 125 * 3600)),
}
_MEANT = {"m": "min", "cent": "eurocent"}  # what a unit means beside another kind of unit: 1 h 30 m
_FACTOR = re.compile(r"([A-Za-zµΩ]+)([2-9]?)")

_NUMBER = rf"(?:\d{{1,9}}(?:,\d{{3}})*(?:\.\d{{1,9}})?(?:\s\d{{1,3}}/\d{{1,3}})?|(?i:{WORDS})|[Aa]n?(?=\s))"
_UNIT = r"[A-Za-zµΩ]{1,12}(?![A-Za-z])\.?"
_PART = re.compile(rf"({_NUMBER})(\s*)-?({_UNIT})")
_LINK = re.compile(r"(?:\s*,)?\s*(?:and\s+|&\s*)?(?=[\dA-Za-z])")
_PRIMES = re.compile(r"(?<![\d.°])(\d{1,3})\s?['\u2019\u2032]\s?(\d{1,2}(?:\.\d{1,4})?)\s?(?:[\"\u201d\u2033]|'')")
_BEGINS = re.compile(rf"(?<![\w.,/^]){_NUMBER}\s?[A-Za-z'\u2019\u2032]")


_WORDED = re.compile(
    rf"((?i:{WORDS})|[Aa]n?|\d{{1,9}})(\s+(?:and\s+)?a\s+half)?\s+([A-Za-z][A-Za-z ]{{0,20}}?)(\s+and\s+a\s+half)?"
)


def factor(said: str, right: str) -> Fraction | None:
    """How many of the unit `right` one unit `said` is; None if they measure different things."""
    sizes = _size(said), _size(right)
    return sizes[0][1] / sizes[1][1] if sizes[0] and sizes[1] and sizes[0][0] == sizes[1][0] else None


def _size(name: str) -> tuple[Kind, Fraction] | None:
    """The kind and the size of a unit with powers and at most one division: `cm2`, `m/s2`."""
    if name in _UNITS:
        return _UNITS[name]
    powers: dict[str, int] = {}
    size = Fraction(1)
    for sign, part in zip((1, -1), name.split("/", 1), strict=False):
        found = _FACTOR.fullmatch(part)
        if not found or found[1] not in _UNITS:
            return None
        kind, base = _UNITS[found[1]]
        power = sign * int(found[2] or 1)
        size *= base**power
        for of, times in kind:
            powers[of] = powers.get(of, 0) + times * power
    return tuple(sorted(powers.items())), size


def mixed(text: str) -> tuple[str, str, str, int] | None:
    """The quantity in two or more units that a text opens with, as (its canonical text, its amount in the last unit,
    that unit, its length in the text): `2 hours and 15 minutes` is `2 hours 15 minutes`, 135 min."""
    begun = text[:MAX_LENGTH]
    if primes := _PRIMES.match(begun):
        amount = 12 * int(primes[1]) + Fraction(primes[2])
        return f"{primes[1]} ft {primes[2]} in", str(amount), "in", primes.end()
    parts: list[tuple[Fraction, str, str]] = []
    end = 0
    while part := _PART.match(begun, end if not parts else _linked(begun, end)):
        value = _value(part[1], is_first=not parts)
        name = unit_name(part[3])
        is_loose = bool(part[2]) or len(part[3].rstrip(".")) > 1 or part[3] in "hms"
        if value is None or name not in _UNITS or not is_loose or (parts and parts[-1][0].denominator > 1):
            break
        parts.append((value, name, part[3].rstrip(".") if "." in part[3] else part[3]))
        end = part.end()
        if len(parts) > 1 and _descending(parts) is None:
            parts.pop()
            break
    names = _descending(parts) if len(parts) > 1 else None
    if names is None:
        return None
    last = _UNITS[names[-1]][1]
    amount = sum((value * _UNITS[name][1] / last for (value, *_), name in zip(parts, names, strict=True)), Fraction(0))
    shown = " ".join(f"{value} {word}" for value, _, word in parts)
    return shown, str(amount), names[-1], end


def worded(text: str) -> tuple[Fraction, str] | None:
    """The amount and the unit of `two hours`, `three and a half hours`, `an hour and a half`."""
    found = _WORDED.fullmatch(text[:MAX_LENGTH])
    value = _value(found[1], is_first=True) if found and unit_name(found[3]) else None
    if found is None or value is None or (found[1].isdigit() and not (found[2] or found[4])):
        return None
    return value + Fraction(1 if found[2] or found[4] else 0, 2), found[3]


def _linked(text: str, end: int) -> int:
    link = _LINK.match(text, end)
    return link.end() if link else len(text)


def _value(said: str, is_first: bool) -> Fraction | None:
    if said in ("a", "an", "A", "An"):
        return Fraction(1) if is_first else None
    value = number(said)
    return in_words(said) if value is None else value


def _descending(parts: list[tuple[Fraction, str, str]]) -> list[str] | None:
    """The units of a quantity, if they are of one kind and each is smaller than the one before it."""
    said = [name for _, name, _ in parts]
    for names in (said, [_MEANT.get(name, name) for name in said]):
        sizes = [_UNITS[name] for name in names]
        if len({kind for kind, _ in sizes}) == 1 and all(a[1] > b[1] for a, b in pairwise(sizes)):
            return names
    return None


def mixed_in(sentence: str) -> tuple[list[str], str]:
    """The quantities in two or more units in a sentence, and the sentence without them."""
    found, kept, last = [], [], 0
    for begun in _BEGINS.finditer(sentence):
        if begun.start() >= last and (quantity := mixed(sentence[begun.start() :])):
            found.append(quantity[0])
            kept.append(sentence[last : begun.start()])
            last = begun.start() + quantity[3]
    return found, " ".join([*kept, sentence[last:]])
