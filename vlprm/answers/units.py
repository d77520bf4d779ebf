"""A number and the words after it: a unit, which an answer may leave out, or a word that changes the answer (`PM`,
`north`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

# One unit per line: its canonical name, then other spellings.
_SPELLINGS = """
mm millimeter millimetre
cm centimeter centimetre
dm decimeter decimetre
m meter metre
km kilometer kilometre
in inch inches
ft foot feet
yd yard
mi mile
nm nanometer nanometre
µm μm um micron micrometer micrometre
ly lightyear
mg milligram
g gram
kg kilogram kilo
ton tonne
lb lbs pound
oz ounce
ml mL milliliter millilitre
cl cL
L liter litre
gal gallon
pint
cup
ms millisecond
s sec second
min mins minute
h hr hrs hour
day
week
month
year yr
decade
century centuries
N newton
J joule
kJ kilojoule
W watt
kW kilowatt
kWh
V volt
mV
A amp ampere
mA milliamp
Ω ohm \\Omega
kΩ kohm
Hz hertz
kHz
MHz
Pa pascal
kPa
K kelvin
°C ℃ celsius
°F ℉ fahrenheit
mol mole
eV
tesla
cal calorie
kcal
atm
bar
mph
kph kmh kmph
rpm
rad radian
° degree deg \\circ
% percent pct
dollar usd bucks
cent
euro eur
gbp
yen jpy
rupee inr
yuan rmb
ha hectare
acre
byte
kB KB kilobyte
MB megabyte
GB gigabyte
unit
"""
_UNITS = {spelling: line.split()[0] for line in _SPELLINGS.split("\n") if line for spelling in line.split()}
# Letters that may follow a number without a space: those that are rarely names of variables.
_CLOSE = {"%", "°", "J", "N", "W", "V", "Ω", "L", "F", "C", "K", "g"} | {name for name in _UNITS if len(name) > 1}
# Words after a number that change its meaning.
_CHANGES = {
    "am": "am", "pm": "pm", "noon": "noon", "midnight": "midnight", "bc": "bc", "ad": "ad", "bce": "bc", "ce": "ad",
    "north": "north", "south": "south", "east": "east", "west": "west", "up": "up", "down": "down", "left": "left",
    "right": "right", "upward": "up", "downward": "down", "northeast": "northeast", "northwest": "northwest",
    "southeast": "southeast", "southwest": "southwest", "upwards": "up", "downwards": "down", "above": "above",
    "below": "below", "clockwise": "clockwise", "counterclockwise": "counterclockwise", "ago": "ago", "later": "later",
    "earlier": "earlier", "before": "before", "after": "after", "more": "more", "less": "less", "fewer": "less",
    "gain": "gain", "loss": "loss", "profit": "profit", "forward": "forward", "backward": "backward",
    "inside": "inside",
    "outside": "outside", "positive": "positive", "negative": "negative", "remainder": "remainder",
}  # fmt: skip
_NO_NOUNS = {
    *("and", "or", "if", "for", "when", "where", "with", "mod", "from", "between", "sin", "cos", "tan", "cot", "sec"),
    *(
        "csc",
        "log",
        "exp",
        "lim",
        "max",
        "min",
        "gcd",
        "lcm",
        "because",
        "since",
        "but",
        "not",
        "than",
        "that",
        "which",
    ),
    *("hundred", "thousand", "million", "billion", "trillion", "dozen", "the", "then", "plus", "minus", "times"),
    *("divided", "over", "squared", "cubed", "choose", "factorial"),
}
MAGNITUDES = {
    "dozen": Fraction(12), "hundred": Fraction(100), "thousand": Fraction(1000), "k": Fraction(1000),
    "million": Fraction(10**6), "mln": Fraction(10**6), "billion": Fraction(10**9), "bn": Fraction(10**9),
    "trillion": Fraction(10**12),
}  # fmt: skip

_NUMERIC = re.compile(
    r"(?:[\d.,/+\-*(){}^:\s±]|\\(?:frac|sqrt|pi|cdot|times|pm|mp|div|binom)(?![A-Za-z])|[\u03c0√\u00d7·])+"
)
_POWER = r"(?:\s?\^\s?\{?\s?-?[1-9]\s?\}?)?"
_WORD = rf"(?:[°%℃℉]|°[CF]|\\Omega|[A-Za-zµμΩΩ]{{1,20}}\.?{_POWER})"
_PHRASE = re.compile(rf"{_WORD}(?:(?:\s?[/·]\s?|\s?\\cdot\s?|\s|-){_WORD}){{0,3}}")
_AM_PM = re.compile(r"\b([AaPp])\.\s?[Mm]\.?")
_POWERS = {"square": "2", "sq": "2", "squared": "2", "cubic": "3", "cu": "3", "cubed": "3"}
Kind = Literal["unit", "noun", "changes"]


@dataclass(frozen=True)
class Unit:
    """The words after a number. `name` is the same for all spellings. An answer may leave out a unit or a noun, but not
    a word that `changes` it."""

    kind: Kind
    name: str

    def clashes(self, other: Unit | None) -> bool:
        """Whether answers with these units differ even if their numbers are equal."""
        if other is None:
            return self.kind == "changes"
        if "changes" in (self.kind, other.kind):
            return self != other
        return "unit" not in (self.name, other.name, self.name[:4], other.name[:4]) and self.name != other.name


def parted(text: str) -> tuple[str, str]:
    """Split a text into a number and its unit as written; the unit is empty if the rest is mathematics or prose."""
    said = _AM_PM.sub(r"\1m", text.strip())
    said = re.sub(r"^(?:[£€¥₹]|US(?=\s?\d)|\\(?:pounds|euro|yen)\s?)\s?", "", said)
    value = _NUMERIC.match(said)
    if not value or not re.search(r"\d|\\pi|π", value[0]):
        return said, ""
    rest = said[value.end() :].strip()
    close = not value[0][-1].isspace()
    unit = unit_of(rest, close) if rest and value[0].count("{") == value[0].count("}") else None
    return (value[0].strip(), rest) if unit else (said, "")


def unit_of(text: str, close: bool = False) -> Unit | None:
    """The unit in the text after a number, or None. `close`: no space separates the two."""
    said = re.sub(r"\s?(?:per|an?(?= hour| minute| second| day))\s", "/", text.strip().rstrip("."))
    if not _PHRASE.fullmatch(said):
        return None
    words = [word.rstrip(".") for word in re.findall(rf"{_WORD}|/", said.replace("-", " "))]
    if not close and (changing := [_CHANGES[word.casefold()] for word in words if word.casefold() in _CHANGES]):
        return Unit("changes", " ".join(changing))
    name, pending = "", ""
    kind: Kind = "unit"
    for word in words:
        base, power = _raised(word)
        known = _named(base)
        if base.casefold() in _POWERS:
            name, pending = (name + _POWERS[base.casefold()], "") if name else (name, _POWERS[base.casefold()])
        elif known is not None and (not close or power in ("2", "3") or base in _CLOSE):
            name, pending = name + known + (power or pending), ""
        elif word == "/":
            name += "/"
        elif close or not re.fullmatch(r"[A-Za-z]{3,20}", word) or word.casefold() in _NO_NOUNS:
            return None
        else:
            name, kind = name + _singular(word.casefold()), "noun"
    return Unit(kind, name) if name else None


def _raised(word: str) -> tuple[str, str]:
    base, _, power = word.partition("^")
    return base.strip(), re.sub(r"[{}\s]", "", power)


def _named(word: str) -> str | None:
    bare = word.rstrip(".")
    for spelling in (bare, bare.casefold(), _singular(bare.casefold())):
        if spelling in _UNITS and (len(bare) > 1 or spelling == bare):
            return _UNITS[spelling]
    return None


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def magnitude(text: str) -> Fraction | None:
    """The factor of a word after a number: 1000000 for `million`."""
    return MAGNITUDES.get(text.strip().rstrip(".").casefold())
