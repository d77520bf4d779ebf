"""Puzzles in PuzzleVQA's categories: oracle and solver agree, slips, pictures, and the form of published items."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vlprm.benchmarks.puzzlevqa import CONCEPTS
from vlprm.schema import Problem
from vlprm.steps import parse_step
from vlprm.tasks.puzzles import CATEGORIES, FAMILY, LETTERS, ask, draw, scene_of, solve
from vlprm.tasks.puzzles.words import confusions
from vlprm.tasks.scene import rng_for
from vlprm.tasks.slips import slipped
from vlprm.tasks.synthetic import Scene, truthful

DATA = Path(os.environ.get("VLPRM_DATA", Path(__file__).parents[3] / "shared" / "data")) / "puzzlevqa"
categories = pytest.mark.parametrize("name", CATEGORIES)


def scenes(name: str, count: int) -> list[Scene]:
    return [scene_of(name, rng_for("test", name, i)) for i in range(count)]


def verdicts(scene: Scene, texts: Sequence[str]) -> list[str]:
    problem = Problem("x", "puzzles", "", (), None, "choice", {"scene": scene})
    return [v.error_kind or "right" if v else "?" for v in FAMILY.verdicts(problem, list(map(parse_step, texts)))]


def test_the_categories_are_those_of_the_benchmark() -> None:
    assert list(CATEGORIES) == sorted(CONCEPTS)


@categories
def test_the_truthful_solution_is_right_and_chooses_the_answer(name: str) -> None:
    places = set()
    for scene in scenes(name, 60):
        content, texts = scene["content"], solve(scene, truthful)
        assert verdicts(scene, texts) == ["right"] * len(texts), texts
        question, letter, _ = ask(scene)
        assert texts[-1] == f"[answer] {letter}"
        assert (
            question.endswith(f"\n({letter}) {content['answer']}") or f"\n({letter}) {content['answer']}\n" in question
        )
        assert content["options"].count(content["answer"]) == 1
        assert len(set(content["options"])) == len(content["options"]) == (3 if CATEGORIES[name].noun == "size" else 4)
        places.add(letter)
    assert places == set(LETTERS[: len(content["options"])])


@categories
def test_each_near_value_is_a_wrong_step_of_its_kind_and_errors_carry_on(name: str) -> None:
    kinds = set()
    for scene in scenes(name, 6):
        right = solve(scene, truthful)
        for texts in slipped(FAMILY, scene):
            found = verdicts(scene, texts)
            first = next(k for k, (a, b) in enumerate(zip(texts, right, strict=True)) if a != b)
            kind = parse_step(texts[first]).kind
            expected = [kind if a != b else "right" for a, b in zip(texts, right, strict=True)]
            assert found == expected, texts
            kinds.add(kind)
    assert kinds == {"perception", "reasoning"}


@categories
def test_a_picture_shows_its_cells_and_nothing_of_the_answer(name: str) -> None:
    layout = scenes(name, 1)[0]["layout"]
    shown = {}
    for scene in scenes(name, 10):
        content, told = scene["content"], "{}" in CATEGORIES[name].question  # by the question, not by the picture
        cells = json.dumps([["?"] if told and "?" in cell else cell for cell in content["cells"]])
        image = draw({"content": content, "layout": layout}).tobytes()
        assert shown.setdefault(image, cells) == cells
        other = next(option for option in content["options"] if option != content["answer"])
        assert draw({"content": {**content, "answer": other}, "layout": layout}).tobytes() == image
    assert len(shown) > 1


def test_an_id_regenerates_its_item() -> None:
    items = [FAMILY.problem("test", i) for i in range(6)]
    assert [FAMILY.problem_by_id(item.id) for item in items] == items
    assert len({item.images for item in items}) == 6


GRID = {
    "type": "color_grid",
    "cells": [["red"], ["orange"], ["red"], ["orange"], ["blue"], ["orange"], ["red"], ["?"], ["red"]],
    "answer": "orange",
    "options": ["green", "red", "orange", "yellow"],
}
VENN = {"type": "venn", "cells": [["9"], ["12"], ["3"], ["11"], ["?"]], "answer": "8", "options": ["4", "8", "1", "7"]}
ROWS = ["[perception] row 1: red, orange, red", "[perception] row 2: orange, blue, orange"]
LAST = "[perception] row 3: red, ?, red"
RULE = "[reasoning] rule: corner red, edge orange, center blue"


@pytest.mark.parametrize(
    ("content", "texts", "expected"),
    [
        (GRID, [*ROWS, LAST, RULE, "[reasoning] missing: edge is orange", "[answer] (c)."], ["right"] * 6),
        # A misread edge: the rule follows from it, and so does an answer that no option has.
        (
            GRID,
            [
                "[perception] row 1: red, purple, red",
                *[*ROWS[1:], LAST],
                "[reasoning] rule: corner red, edge purple, center blue",
                "[reasoning] missing: edge is purple",
                "[answer] A",
            ],
            ["perception", "right", "right", "perception", "perception", "perception"],
        ),
        # The right rule, and a conclusion that does not follow from it.
        (
            GRID,
            [*ROWS, LAST, RULE, "[reasoning] missing: edge is red", "[answer] B"],
            ["right"] * 4 + ["reasoning"] * 2,
        ),
        # A line that is left out: what is right stays right, what is wrong follows from nothing.
        (
            GRID,
            [ROWS[0], RULE, "[reasoning] missing: edge is blue", "[answer] C"],
            ["right", "right", "reasoning", "right"],
        ),
        (
            GRID,
            ["[perception] row 4: red", "[perception] row 1: red, orange", "so it is C"],
            ["perception"] * 2 + ["?"],
        ),
        (
            VENN,
            [
                "[perception] parts: 9, 12, 4, 11, ?",
                "[reasoning] rule: 9 + 4 = 12",
                "[reasoning] missing: 11 - 4 = 7",
                "[answer] D",
            ],
            ["perception"] * 4,
        ),
        (
            VENN,
            ["[perception] parts: 9, 12, 3, 11, ?", "[reasoning] missing: 11 - 3 = 9", "[answer] B"],
            ["right", "reasoning", "right"],
        ),
    ],
)  # fmt: skip
def test_truth_of_hand_written_steps(content: dict[str, Any], texts: list[str], expected: list[str]) -> None:
    assert verdicts({"content": content, "layout": {}}, texts) == expected


@categories
def test_any_text_gets_a_verdict_or_none(name: str) -> None:
    (scene,) = scenes(name, 1)
    foreign = ["", "[zoom] {", "[answer] ", "[perception] parts: " + "9" * 5000, "[reasoning] rule: =", RULE]
    foreign += ["[reasoning] missing: - / = x", "[perception] parts: ?", "[perception] row 1:  , ,"]
    for line in (line for line in solve(scene, truthful) if line.startswith("[perception]")):
        foreign.append(re.sub(r"[a-z0-9]+(?=,|$)", "?", line))
        foreign.append(re.sub(r": .*", lambda found: re.sub(r"[^,]+", " 9999", found[0]), line).replace(", ", ":", 1))
    for text in [*foreign, *solve(scene, truthful)[-3:]]:
        verdicts(scene, [*foreign, text, "[reasoning] rule: x", "[reasoning] missing: x", "[answer] A"])


def test_the_nearest_option_is_chosen_for_a_number_that_none_has() -> None:
    def off_by_one(kind: str, concept: str, truth: Any, near: Any) -> Any:
        return "11 - 3 = 6" if concept == "missing venn" else truth

    assert solve({"content": VENN, "layout": {}}, off_by_one)[-1] == "[answer] D"  # type: ignore[arg-type]


def test_confusions_are_the_most_similar_values() -> None:
    assert confusions("color", "orange")[:2] == ["red", "yellow"]
    assert confusions("sides", "3") == ["4", "5"]
    assert confusions("number", "1") == ["2", "0", "3"]


@pytest.mark.skipif(not DATA.is_dir(), reason="the published items are not here")
def test_published_items_have_the_form_of_ours() -> None:
    """Their questions are ours, and all words of their options occur in ours."""
    ours = {name: [scene["content"]["options"] for scene in scenes(name, 40)] for name in CATEGORIES}
    for row in map(json.loads, (DATA / "items.jsonl").read_text().splitlines()):
        category = CATEGORIES[row["_category"]]
        pattern = re.escape(category.question).replace(r"\{\}", "[a-z0-9]+")
        assert re.fullmatch(pattern, row["question"]), row["question"]
        known = {option for options in ours[row["_category"]] for option in options}
        assert all(option in known or option.isdigit() for option in map(str, row["options"])), row["options"]
        assert len(row["options"]) == len(ours[row["_category"]][0])
