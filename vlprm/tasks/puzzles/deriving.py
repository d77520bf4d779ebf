"""Categories where the missing value is derived: sums, products, mixed colors, shades and shapes in between."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from vlprm.tasks.puzzles.category import DIGITS, GRID_ROWS, PART, Category, Cells, any_of, hide
from vlprm.tasks.puzzles.words import COLORS, MORPHS, UNKNOWN, Cell, number_of

MIXED = {"green": ("blue", "yellow"), "purple": ("blue", "red"), "orange": ("red", "yellow")}
PRIMARY = ("red", "yellow", "blue")
SHADES = {"darker": ("light", "medium", "dark", "very dark"), "lighter": ("dark", "medium", "light", "very light")}


def _known(cells: Cells) -> list[int]:
    return [number_of(cell[-1]) for cell in cells if cell[-1] != UNKNOWN]


def _sum(numbers: list[int]) -> str:
    return f"{' + '.join(map(str, numbers))} = {sum(numbers)}"


def _rest(rule: str, numbers: list[int]) -> str:
    """What is left of the rule's sum."""
    total = number_of(rule.rpartition(" ")[2])
    return f"{' - '.join(map(str, (total, *numbers)))} = {total - sum(numbers)}"


def _hexagon(rng: random.Random) -> dict[str, Any]:
    """Numbers of the same color add up to the same sum."""
    total = rng.randint(8, 12)
    cells: list[Cell] = []
    for color in rng.sample(COLORS, 3):
        first = rng.randint(max(1, total - 9), min(9, total - 1))
        cells += [(color, str(first)), (color, str(total - first))]
    rng.shuffle(cells)
    shown, answer = hide(rng, cells, range(6))
    return {"cells": shown, "answer": answer}


def _hexagon_rule(cells: Cells) -> str:
    by_color: dict[str, list[int]] = {}
    for cell in cells:
        by_color.setdefault(cell[0], []).extend(_known([cell]))
    pairs = [numbers for numbers in by_color.values() if len(numbers) > 1]
    return _sum((pairs[0] if pairs else _known(cells))[:2])


def _hexagon_missing(cells: Cells, rule: str) -> str:
    color = next((cell[0] for cell in cells if cell[-1] == UNKNOWN), "")
    return _rest(rule, _known([cell for cell in cells if cell[0] == color])[:1] or [0])


def _grid(rng: random.Random) -> dict[str, Any]:
    """The rows have the same sum."""
    while True:
        rows = [[rng.randint(1, 9) for _ in range(3)] for _ in range(3)]
        total = sum(rows[0])
        for row in rows:
            row[2] = total - row[0] - row[1]
            rng.shuffle(row)
        if all(1 <= number <= 9 for row in rows for number in row):
            shown, answer = hide(rng, [(str(number),) for row in rows for number in row], range(9))
            return {"cells": shown, "answer": answer}


def _rows(cells: Cells) -> list[Cells]:
    return [cells[i : i + 3] for i in (0, 3, 6)]


def _grid_rule(cells: Cells) -> str:
    return _sum(next((numbers for row in _rows(cells) if len(numbers := _known(row)) == 3), _known(cells)[:3]))


def _grid_missing(cells: Cells, rule: str) -> str:
    return _rest(rule, next((numbers for row in _rows(cells) if len(numbers := _known(row)) < 3), [0]))


def _triangle(rng: random.Random) -> dict[str, Any]:
    """The last number of each group is the product of the others."""
    groups = [[a, b, a * b] for a, b in ((rng.randint(1, 9), rng.randint(1, 9)) for _ in range(3))]
    cells = [[str(number) for number in group] for group in groups]
    group, place = rng.randrange(3), rng.randrange(3)
    answer, cells[group][place] = cells[group][place], UNKNOWN
    return {"cells": cells, "answer": answer}


def _triangle_rule(cells: Cells) -> str:
    groups = [cell for cell in cells if len(cell) == 3 and UNKNOWN not in cell]
    a, b = map(number_of, groups[0][:2]) if groups else (1, 1)
    return f"{a} x {b} = {a * b}"


def _triangle_missing(cells: Cells, rule: str) -> str:
    group = next((cell for cell in cells if len(cell) == 3 and UNKNOWN in cell), ("0", "0", UNKNOWN))
    if group[2] == UNKNOWN:
        a, b = map(number_of, group[:2])
        return f"{a} x {b} = {a * b}"
    product, factor = number_of(group[2]), number_of(group[0] if group[1] == UNKNOWN else group[1])
    return f"{product} / {factor} = {product // factor if factor else 0}"


def _known_side(cells: Cells) -> list[str]:
    """The three cells at the known end of five, from left to right."""
    return [cells[i][0] for i in ((2, 3, 4) if cells[0][0] == UNKNOWN else (0, 1, 2))]


def _next_to_unknown(cells: Cells) -> list[str]:
    """The cell next to the unknown end of five, and the middle one."""
    return [cells[i][0] for i in ((1, 2) if cells[0][0] == UNKNOWN else (3, 2))]


def _venn(rng: random.Random) -> dict[str, Any]:
    """The number where two circles overlap is their sum."""
    a, b, c = (rng.randint(1, 9) for _ in range(3))
    cells, answer = hide(rng, [(str(n),) for n in (a, a + b, b, b + c, c)], (0, 4))
    return {"cells": cells, "answer": answer}


def _venn_rule(cells: Cells) -> str:
    one, both, other = _known_side(cells)
    return f"{one} + {other} = {both}"


def _venn_missing(cells: Cells, rule: str) -> str:
    both, other = map(number_of, _next_to_unknown(cells))
    return f"{both} - {other} = {both - other}"


def _squares(rng: random.Random) -> dict[str, Any]:
    """Overlapping squares mix their colors."""
    a, b, c = rng.sample(PRIMARY, 3)
    cells, answer = hide(rng, [(a,), (_mix(a, b),), (b,), (_mix(b, c),), (c,)], (0, 4))
    return {"cells": cells, "answer": answer}


def _mix(one: str, other: str) -> str:
    return next((mixed for mixed, parts in MIXED.items() if sorted((one, other)) == list(parts)), one)


def _squares_rule(cells: Cells) -> str:
    one, both, other = _known_side(cells)
    return f"{one} and {other} make {both}"


def _squares_missing(cells: Cells, rule: str) -> str:
    both, other = _next_to_unknown(cells)
    parts = [part for part in MIXED.get(both, ()) if part != other]
    return f"{both} without {other} is {parts[0] if parts else both}"


def _shades(rng: random.Random) -> dict[str, Any]:
    """Circles within circles get darker or lighter from the inside."""
    color, towards = rng.choice(COLORS), rng.choice(list(SHADES))
    first, *others = SHADES[towards]
    return {"cells": [[UNKNOWN], *([shade, color] for shade in others)], "answer": f"{first} {color}"}


def _shade_options(rng: random.Random, answer: str) -> list[str]:
    shade, color = answer.split(" ")
    found = [answer, f"{'dark' if shade == 'light' else 'light'} {color}"]
    return found + [f"{rng.choice(('dark', 'light'))} {c}" for c in rng.sample([c for c in COLORS if c != color], 2)]


def _shades_rule(cells: Cells) -> str:
    darker = sum("dark" in cell[0] for cell in cells) >= sum("light" in cell[0] for cell in cells)
    return f"from the inside {'darker' if darker else 'lighter'}"


def _shades_missing(cells: Cells, rule: str) -> str:
    shade = "light" if rule.endswith("darker") else "dark"
    return f"the smallest is {shade} {next((cell[-1] for cell in cells if cell[-1] != UNKNOWN), 'red')}"


def _morph(rng: random.Random) -> dict[str, Any]:
    """One shape becomes another in four stages."""
    first, last = rng.sample(MORPHS, 2)
    cells, answer = hide(rng, [(first,), (f"near {first}",), ("mixed",), (f"near {last}",), (last,)], (0, 4))
    return {"cells": cells, "answer": answer, "ends": [first, last]}


def _morph_rule(cells: Cells) -> str:
    known, near = (4, 1) if cells[0][0] == UNKNOWN else (0, 3)
    return f"{cells[known][0]} becomes {cells[near][0].removeprefix('near ')}"


def _morph_missing(cells: Cells, rule: str) -> str:
    return f"the other end is {rule.rpartition(' ')[2]}"


def _numbers(
    rows: tuple[int, ...],
    make: Callable[[random.Random], dict[str, Any]],
    rule: Callable[[Cells], str],
    missing: Callable[[Cells, str], str],
    kinds: tuple[str, ...] = ("number",),
) -> Category:
    return Category("number", PART.format("number"), rows, kinds, "number", make, _digits, rule, missing)


def _digits(rng: random.Random, answer: str) -> list[str]:
    """Digits beside a digit, numbers of two digits beside a larger number."""
    values = list(DIGITS) if len(answer) == 1 else [str(n) for n in range(10, 82)]
    return any_of(values)(rng, answer)


DERIVING: dict[str, Category] = {
    "color_number_hexagon": _numbers((6,), _hexagon, _hexagon_rule, _hexagon_missing, ("color", "number")),
    "color_overlap_squares": Category(
        "color", PART.format("color"), (5,), ("color",), "color", _squares, any_of(COLORS), _squares_rule,
        _squares_missing,
    ),
    "color_size_circle": Category(
        "color", PART.format("color"), (4,), ("shade", "color"), "towards", _shades, _shade_options, _shades_rule,
        _shades_missing,
    ),
    "grid_number": _numbers(GRID_ROWS, _grid, _grid_rule, _grid_missing),
    "shape_morph": Category(
        "shape", PART.format("shape"), (5,), ("stage",), "shape", _morph, any_of(MORPHS), _morph_rule, _morph_missing,
    ),
    "triangle": _numbers((3,), _triangle, _triangle_rule, _triangle_missing, ("number",) * 3),
    "venn": _numbers((5,), _venn, _venn_rule, _venn_missing),
}  # fmt: skip
