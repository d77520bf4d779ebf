"""Categories where parts with the same key have the same value: places, colors, sizes, shapes and numbers as keys."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from vlprm.tasks.puzzles.category import DIGITS, GRID_ROWS, PART, Category, Cells, any_of, hide
from vlprm.tasks.puzzles.words import COLORS, LENGTHS, SHAPES, SIZES, UNKNOWN, Cell

Pairs = list[tuple[str, str]]  # the key and the value of each part
GRID = ("corner", "edge", "corner", "edge", "center", "edge", "corner", "edge", "corner")
ARM = ("inner", "middle", "outer")
SIZE = "What is the size of the missing part denoted {} a question mark?"
SIDES = tuple(map(str, range(3, 10)))


def _rule(pairs: Pairs) -> str:
    """The first known value of each key."""
    table: dict[str, str] = {}
    for key, value in pairs:
        if value != UNKNOWN:
            table.setdefault(key, value)
    return ", ".join(f"{key} {value}" for key, value in table.items())


def _missing(pairs: Pairs, rule: str) -> str:
    """The rule's value for the key of the unknown part; for a key without a value, the rule's last value."""
    parts = [part.rpartition(" ") for part in rule.split(", ")]
    table = {key: value for key, _, value in parts}
    key = next((key for key, value in pairs if value == UNKNOWN), "")
    return f"{key} is {table.get(key, parts[-1][2])}"


def _by_place(places: Sequence[str]) -> Callable[[Cells], Pairs]:
    return lambda cells: [(place, cell[-1]) for place, cell in zip(places, cells, strict=True)]


def _by_first(cells: Cells) -> Pairs:
    return [(cell[0], cell[-1]) for cell in cells]


def _by_arm(cells: Cells) -> Pairs:
    return [pair for cell in cells for pair in zip(ARM, cell, strict=False)]


def _by_line(cells: Cells) -> Pairs:
    """Sizes by column or by row, whichever has fewer sizes in each line."""
    columns = [(f"column {i % 3 + 1}", cell[-1]) for i, cell in enumerate(cells)]
    rows = [(f"row {i // 3 + 1}", cell[-1]) for i, cell in enumerate(cells)]
    return min((columns, rows), key=lambda pairs: len({pair for pair in pairs if pair[1] != UNKNOWN}))


def _twice(rng: random.Random, pairs: Iterable[Cell], more: int = 0) -> dict[str, Any]:
    """Each pair twice and `more` of the unknown one, in any order."""
    known = list(pairs)
    missing = rng.choice(known)
    cells = [*known, *known, *[missing] * more]
    rng.shuffle(cells)
    shown, answer = hide(rng, cells, [i for i, cell in enumerate(cells) if cell == missing])
    return {"cells": shown, "answer": answer}


def _circles(rng: random.Random) -> dict[str, Any]:
    numbers = sorted(rng.sample(DIGITS[1:7], 3))
    made = _twice(rng, zip(SIZES, numbers, strict=True))
    return {**made, "radii": dict(zip(SIZES, map(int, numbers), strict=True))}


def _bars(values: Sequence[str]) -> Callable[[random.Random], dict[str, Any]]:
    def make(rng: random.Random) -> dict[str, Any]:
        pairs = list(zip(LENGTHS, rng.sample(values, 3), strict=True))
        cells = [*pairs, *pairs]
        rng.shuffle(cells)
        shown, answer = hide(rng, [*cells, rng.choice(pairs)], [6])
        return {"cells": shown, "answer": answer}

    return make


def _grid(values: Sequence[str]) -> Callable[[random.Random], dict[str, Any]]:
    def make(rng: random.Random) -> dict[str, Any]:
        table = dict(zip(("corner", "edge", "center"), rng.sample(values, 3), strict=True))
        cells, answer = hide(rng, [(table[place],) for place in GRID], (0, 1, 2, 3, 5, 6, 7, 8))
        return {"cells": cells, "answer": answer}

    return make


def _hexagon(rng: random.Random) -> dict[str, Any]:
    cells, answer = hide(rng, [(color,) for color in rng.sample(COLORS, 3) * 2], range(6))
    return {"cells": cells, "answer": answer}


def _grid_number(rng: random.Random) -> dict[str, Any]:
    return _twice(rng, zip(rng.sample(DIGITS[1:], 4), rng.sample(COLORS, 4), strict=True), more=1)


def _polygons(rng: random.Random) -> dict[str, Any]:
    return _twice(rng, zip(rng.sample(SIDES, 3), rng.sample(COLORS, 3), strict=True))


def _polygon_numbers(rng: random.Random) -> dict[str, Any]:
    cells, answer = hide(rng, [(sides, sides) for sides in rng.sample(SIDES, 6)], range(6))
    return {"cells": cells, "answer": answer}


def _sides_are_numbers(cells: Cells, rule: str) -> str:
    sides = next((cell[0] for cell in cells if cell[-1] == UNKNOWN), "")
    return f"{sides} sides is {sides}"


def _around(rng: random.Random) -> dict[str, Any]:
    pairs = list(zip(rng.sample(SHAPES, 3), rng.sample(SIZES, 3), strict=True))
    cells, answer = hide(rng, [*pairs, *pairs, rng.choice(pairs)], [6])
    return {"cells": cells, "answer": answer}


def _sized(rng: random.Random) -> dict[str, Any]:
    """Shapes along one side of the grid, growing or shrinking along the other."""
    shapes, sizes = rng.sample(SHAPES, 3), list(SIZES)[:: rng.choice((1, -1))]
    cells = [(shapes[row], sizes[column]) for row in range(3) for column in range(3)]
    if rng.random() < 0.5:
        cells = [cells[i % 3 * 3 + i // 3] for i in range(9)]
    place = rng.randrange(9)
    shown = [[UNKNOWN] if i == place else list(cell) for i, cell in enumerate(cells)]
    return {"cells": shown, "answer": cells[place][1]}


def _reflected(rng: random.Random) -> dict[str, Any]:
    cells, answer = hide(rng, [(shape,) for shape in rng.sample(SHAPES, 3) * 2], range(3))
    return {"cells": cells, "answer": answer}


def _arms(rng: random.Random) -> dict[str, Any]:
    arm, place = rng.randrange(3), rng.randrange(3)
    cells = [[UNKNOWN if (a, p) == (arm, place) else size for p, size in enumerate(SIZES)] for a in range(3)]
    return {"cells": cells, "answer": SIZES[place]}


def _matching(
    noun: str,
    rows: tuple[int, ...],
    kinds: tuple[str, ...],
    make: Callable[[random.Random], dict[str, Any]],
    values: Sequence[str],
    pairs: Callable[[Cells], Pairs] = _by_first,
    question: str = PART,
) -> Category:
    return Category(
        noun=noun,
        question=question.format(noun) if question is PART else question,
        rows=rows,
        kinds=kinds,
        rule_kind=kinds[-1],
        make=make,
        options=any_of(values),
        rule=lambda cells: _rule(pairs(cells)),
        missing=lambda cells, rule: _missing(pairs(cells), rule),
    )


PYRAMID = (1, 2, 3)
IF_NUMBER = "What is the missing color if the part denoted with the question mark has the number {}?"
IF_SHAPE = "What is the size of the missing shape denoted with a question mark if it is a {}?"
OF_GRID = "What is the color of the missing part denoted with a question mark?"
OF_CIRCLE = "What is the size of the missing circle denoted with a question mark?"
OF_SHAPE = "What is the missing shape denoted by a question mark?"

MATCHING: dict[str, Category] = {
    "circle_size_number": _matching("number", (6,), ("size", "number"), _circles, DIGITS[1:7]),
    "color_grid": _matching("color", GRID_ROWS, ("color",), _grid(COLORS), COLORS, _by_place(GRID), OF_GRID),
    "color_hexagon": _matching(
        "color", (6,), ("color",), _hexagon, COLORS, _by_place(("pair 1", "pair 2", "pair 3") * 2)
    ),
    "grid_number_color": _matching(
        "color", GRID_ROWS, ("number", "color"), _grid_number, COLORS, question=IF_NUMBER
    ),
    "polygon_sides_color": _matching("color", PYRAMID, ("sides", "color"), _polygons, COLORS),
    "polygon_sides_number": Category(
        noun="number",
        question=PART.format("number"),
        rows=PYRAMID,
        kinds=("sides", "number"),
        rule_kind="",
        make=_polygon_numbers,
        options=any_of(SIDES),
        rule=lambda cells: "each number counts the sides",
        missing=_sides_are_numbers,
    ),
    "rectangle_height_color": _matching("color", (7,), ("length", "color"), _bars(COLORS), COLORS),
    "rectangle_height_number": _matching("number", (7,), ("length", "number"), _bars(DIGITS[1:4]), DIGITS[1:5]),
    "shape_reflect": _matching(
        "shape", (3, 3), ("shape",), _reflected, SHAPES, _by_place(("column 1", "column 2", "column 3") * 2), OF_SHAPE
    ),
    "shape_size_grid": _matching(
        "size", GRID_ROWS, ("shape", "size"), _sized, SIZES, _by_line, SIZE.format("by")
    ),
    "shape_size_hexagon": _matching("size", (7,), ("shape", "size"), _around, SIZES, question=IF_SHAPE),
    "size_cycle": _matching("size", (3,), ("size", "size", "size"), _arms, SIZES, _by_arm, OF_CIRCLE),
    "size_grid": _matching(
        "size", GRID_ROWS, ("size",), _grid(SIZES), SIZES, _by_place(GRID), SIZE.format("with")
    ),
}  # fmt: skip
