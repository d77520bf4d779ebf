"""A number and the words after it: a unit, which an answer may leave out, or a word that changes the answer (`PM`,
`north`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
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
lb lbs
pound
oz ounce
ml mL milliliter millilitre
cl cL
L l liter litre
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
GHz
Pa pascal
kPa
MPa
GPa
K kelvin
kN
MJ
MW megawatt
GW gigawatt
kV
μC µC
nC
mC
pF
nF
μF µF
mH
mW
Wb weber
Wh
dB decibel
lux
lumen
candela
becquerel
coulomb
farad
henry
sievert
siemens
Å angstrom
AU
hp horsepower
psi
mmHg
ppm
ppb
fps
knot
tbsp tablespoon
tsp teaspoon
qt quart
cc
°C ℃ celsius
°F ℉ fahrenheit
mol mole
eV
tesla
cal calorie
kcal
atm
bar
mph mi/h mile/hour mi/hr
kph kmh kmph km/h
rpm
rad radian
° degree deg \\circ
% percent pct
dollar usd bucks
cad
aud
nzd
hkd
cent
euro eur €
gbp £ sterling
penny pence
chf
¥
yen jpy
rupee inr rs ₹
yuan rmb cny
won krw ₩
ruble rouble rub ₽
ha hectare
acre
byte
kB KB kilobyte
MB megabyte
GB gigabyte
TB terabyte
kbps
Mbps
Gbps
unit
"""
_UNITS = {spelling: line.split()[0] for line in _SPELLINGS.split("\n") if line for spelling in line.split()}
# Letters that may follow a number without a space: those that are rarely names of variables.
_SEGMENTS = {"AU", "TB", "MW", "GW", "MJ", "cc", "hp", "qt", "rs", "Wb", "kN", "pF", "nC", "mC", "mH", "mW", "nF"}
_CLOSE = {"%", "°", "J", "N", "W", "V", "Ω", "L", "F", "C", "K", "g", "£", "€", "¥", "₹", "₩", "₽"} | {
    name
    for name in _UNITS
    if len(name) > 1 and name not in _SEGMENTS  # 2AU is a product
}
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
_MAGNITUDES = {
    "dozen": 12, "hundred": 100, "thousand": 1000, "lakh": 10**5, "million": 10**6, "mln": 10**6, "mn": 10**6,
    "crore": 10**7, "billion": 10**9, "bn": 10**9, "trillion": 10**12,
}  # fmt: skip
_LETTERS = {"k": 1000, "K": 1000, "M": 10**6, "B": 10**9}  # only right after a digit: 300 K is a temperature
_SCALED = re.compile(
    rf"\s?\b(?P<word>{'|'.join(_MAGNITUDES)})s?\b\.?|(?<=\d)(?P<letter>[kKMB])(?![A-Za-z])", re.IGNORECASE
)

_NUMERIC = re.compile(
    r"(?:[\d.,/+\-*(){}^:\s±]|\\(?:frac|sqrt|pi|cdot|times|pm|mp|div|binom)(?![A-Za-z])|[\u03c0√\u00d7·])+"
)
_POWER = r"(?:\s?\^\s?\{?\s?-?[1-9]\s?\}?)?"
_WORD = rf"(?:°[CF]|[°%℃℉£€¥₹₩₽]|\\Omega|[\u4e00-\u9fff]{{1,4}}|[A-Za-zµμΩΩ]{{1,20}}\.?{_POWER})"
_PHRASE = re.compile(rf"{_WORD}(?:(?:\s?[/·]\s?|\s?\\cdot\s?|\s|-){_WORD}){{0,3}}")
_MONEY = re.compile(r"^(?:[£€¥₹₩₽]|(?:US|USD|EUR|GBP|CAD|AUD|INR|CNY|RMB|Rs\.?)\s?(?=\d)|\\(?:pounds|euro|yen)\s?)\s?")
_GLUED = {"am", "pm"}  # these change a number also without a space
_AM_PM = re.compile(r"(?:\b|(?<=\d))([AaPp])\.\s?[Mm]\b\.?")
_ERA = re.compile(r"\b([BA])\.\s?([CD])\b\.?")
_UNIT_FRACTION = re.compile(r"\\frac\s?\{([A-Za-z]{1,4})\}\s?\{([A-Za-z]{1,4}(?:\^\{?\d\}?)?)\}$")
_POWERS = {"square": "2", "sq": "2", "squared": "2", "cubic": "3", "cu": "3", "cubed": "3"}
# Names that stand for one of several units, and need not differ from them.
_EITHER = [
    {"pound", "lb"},
    {"pound", "gbp"},
    {"¥", "yen"},
    {"¥", "yuan"},
    *({"dollar", d} for d in ("cad", "aud", "nzd", "hkd")),
]
Kind = Literal["unit", "noun", "changes", "whole"]


@dataclass(frozen=True)
class Unit:
    """The words after a number. `name` is the same for all spellings. An answer may leave out a unit or a noun, but not
    a word that `changes` it, nor the units of a `whole` quantity in two units."""

    kind: Kind
    name: str

    def clashes(self, other: Unit | None) -> bool:
        """Whether answers with these units differ even if their numbers are equal."""
        if other is None:
            return self.kind in ("changes", "whole")
        if "changes" in (self.kind, other.kind):
            return self != other
        if {self.name, other.name} in _EITHER:
            return False
        return "unit" not in (self.name, other.name, self.name[:4], other.name[:4]) and self.name != other.name


def parted(text: str) -> tuple[str, str]:
    """Split a text into a number and its unit as written; the unit is empty if the rest is mathematics or prose."""
    said = _ERA.sub(r"\1\2", _AM_PM.sub(r"\1m", _UNIT_FRACTION.sub(r" \1/\2", text.strip())))
    said = without_currency(said)
    value = _NUMERIC.match(said)
    if not value or not re.search(r"\d|\\pi|π", value[0]):
        return said, ""
    rest = said[value.end() :].strip()
    close = not value[0][-1].isspace()
    unit = unit_of(rest, close) if rest and value[0].count("{") == value[0].count("}") else None
    return (value[0].strip(), rest) if unit else (said, "")


def without_currency(text: str) -> str:
    """The text without a currency before its number."""
    return _MONEY.sub("", text)


def unit_of(text: str, close: bool = False) -> Unit | None:
    """The unit in the text after a number, or None. `close`: no space separates the two."""
    said = re.sub(r"\s?(?:per|an?(?= hour| minute| second| day))\s", "/", text.strip().rstrip("."))
    if not _PHRASE.fullmatch(said):
        return None
    words = [word.rstrip(".") for word in re.findall(rf"{_WORD}|/", said.replace("-", " "))]
    if words and words[0].casefold() in _GLUED:
        return Unit("changes", " ".join(word.casefold() for word in words))
    if not close and (changing := [_CHANGES[word.casefold()] for word in words if word.casefold() in _CHANGES]):
        return Unit("changes", " ".join(changing))
    if words == ["times"]:
        return Unit("noun", "time")
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
        elif re.fullmatch(r"[\u4e00-\u9fff]+", word):
            name, kind = name + word, "noun"
        elif close or not re.fullmatch(r"[A-Za-z]{3,20}", word) or word.casefold() in _NO_NOUNS:
            return None
        else:
            name, kind = name + _singular(word.casefold()), "noun"
    return Unit(kind, _UNITS.get(name, name)) if name else None


def _raised(word: str) -> tuple[str, str]:
    base, _, power = word.partition("^")
    return base.strip(), re.sub(r"[{}\s]", "", power)


def _named(word: str) -> str | None:
    bare = word.rstrip(".")
    for spelling in (bare, bare.casefold(), _singular(bare.casefold())):
        if spelling in _UNITS and (len(bare) > 1 or spelling == bare):
            return _UNITS[spelling]
    return None


def unit_name(word: str) -> str:
    """The name of the unit that one word is, in any spelling; empty if it is none."""
    return _named(word) or ""


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def scaled(text: str, letters: str = "kK") -> tuple[str, int, str]:
    """Split `5 million cars` into the number, the factor and the rest. The factor is 1 if the text has none, or if the
    rest is not a unit. `letters` are the letters that count as factors right after a digit."""
    found = _SCALED.search(text)
    factor = _MAGNITUDES[found["word"].casefold()] if found and found["word"] else 0
    if found and found["letter"]:
        factor = _LETTERS[found["letter"]] if found["letter"] in letters else 0
    if not found or not factor:
        return text, 1, ""
    rest = text[found.end() :].strip()
    is_unit = not rest or unit_of(rest) is not None
    return (text[: found.start()].strip(), factor, rest) if is_unit else (text, 1, "")
