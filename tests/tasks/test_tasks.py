"""Families: items by id, disjoint splits, truth of hand-written steps, and print too fine for the overview."""

import dataclasses
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import executed, solved
from vlprm.schema import Problem, Region, Step
from vlprm.steps import parse_step
from vlprm.tasks import TASKS, load_task, load_tasks, problem_by_id
from vlprm.tasks.fine_print import INK, OVERVIEW_SIDE, PALETTE, PRINTS, _printed
from vlprm.tasks.scene import rng_for
from vlprm.tasks.synthetic import item_ids

FAMILIES = load_tasks([*TASKS, "docs.examples.dominoes"])
families = pytest.mark.parametrize("name", FAMILIES)


def verdicts(problem: Problem, texts: Sequence[str]) -> list[str]:
    found = FAMILIES[problem.task].verdicts(problem, [executed(parse_step(text)) for text in texts])
    return ["?" if v is None else v.error_kind or "right" for v in found]


def with_scene(task: str, content: dict, layout: object = None) -> Problem:
    return Problem("x", task, "", (), None, "word", {"scene": {"content": content, "layout": layout}})


GRID = with_scene(
    "count_grid",
    {"type": "colour", "cells": [[["red", "star"], None, ["blue", "star"]], [["red", "circle"]] * 3], "target": "red"},
)
PATTERN = with_scene(
    "pattern",
    {"type": "colour", "rows": 2, "missing": 4, "cells": [{"colour": c} for c in ["red", "blue"] * 3]},
)
CHART = with_scene("chart", {"type": "difference", "heights": [2, 7, 5, 3], "asked": ["B", "D"]})
FIGURE = with_scene("figure", {"type": "perimeter", "numbers": [5, 3], "colours": ["red", "blue"]})
PLATES = {"green": [1, 3, "checks"], "red": [4, 1, "bars"]}
DOMINOES = with_scene("dominoes", {"type": "in all", "tiles": [[3, 5], [6, 1]]})
PRINT = with_scene(
    "fine_print", {"type": "read", "plates": PLATES, "asked": ["green"]}, {"green": [8, 8], "red": [8, 8]}
)


@pytest.mark.parametrize(
    ("problem", "texts", "expected"),
    [
        (
            GRID,
            [
                "[perception] row 1: red none blue",
                "[perception] row 2: red red red",
                "[reasoning] red by row: 1 + 3 = 4",
                "[answer] 4",
            ],
            ["right"] * 4,
        ),
        # A wrong reading is a perception error, and what follows from it carries it.
        (
            GRID,
            [
                "[perception] row 1: red none red",
                "[perception] row 2: red red red",
                "[reasoning] red by row: 2 + 3 = 5",
                "[answer] 5",
            ],
            ["perception", "right", "perception", "perception"],
        ),
        # A wrong sum of right readings is a reasoning error.
        (
            GRID,
            [
                "[perception] row 1: red none blue",
                "[perception] row 2: red red red",
                "[reasoning] red by row: 1 + 3 = 5",
                "[answer] 5",
            ],
            ["right", "right", "reasoning", "reasoning"],
        ),
        (GRID, ["[perception] row 9: red none blue", "I think it is 4", "[answer] 4"], ["perception", "?", "right"]),
        (
            PATTERN,
            [
                "[perception] cells: red blue red blue ? blue",
                "[reasoning] the cycle is red blue",
                "[reasoning] cell 5 is red",
                "[answer] red",
            ],
            ["right"] * 4,
        ),
        (
            PATTERN,
            [
                "[perception] cells: red blue red blue ? blue",
                "[reasoning] the cycle is red blue",
                "[reasoning] cell 5 is blue",
                "[answer] blue",
            ],
            ["right", "right", "reasoning", "reasoning"],
        ),
        (CHART, ["[perception] B is 7", "[perception] D is 3", "[reasoning] 7 - 3 = 4", "[answer] 4"], ["right"] * 4),
        (
            CHART,
            ["[perception] B is 8", "[perception] D is 3", "[reasoning] 8 - 3 = 5", "[answer] 5"],
            ["perception", "right", "perception", "perception"],
        ),
        (
            FIGURE,
            ["[perception] the sides are 5 and 3", "[reasoning] 5 + 3 = 8", "[reasoning] 2 x 8 = 18", "[answer] 18"],
            ["right", "right", "reasoning", "reasoning"],
        ),
        (
            PRINT,
            [
                "[perception] the green plate is in row 1 column 3",
                '[zoom] {"bbox_2d": [500, 0, 750, 250], "label": "green plate"}',
                "[perception] the green plate has checks",
                "[answer] checks",
            ],
            ["right"] * 4,
        ),
        # The right place stated and another one zoomed: an action error. The print read there is another plate's.
        (
            PRINT,
            [
                "[perception] the green plate is in row 1 column 3",
                '[zoom] {"bbox_2d": [0, 750, 250, 1000], "label": "green plate"}',
                "[perception] the green plate has bars",
            ],
            ["right", "action", "perception"],
        ),
        # A zoom that follows from a wrong place carries its error.
        (
            PRINT,
            [
                "[perception] the green plate is in row 4 column 1",
                '[zoom] {"bbox_2d": [0, 750, 250, 1000], "label": "green plate"}',
                "[perception] the green plate has bars",
                "[answer] bars",
            ],
            ["perception"] * 4,
        ),
        (
            DOMINOES,
            [
                "[perception] tile 1: 3 and 4",
                "[perception] tile 2: 6 and 1",
                "[reasoning] dots by tile: 7, 8",
                "[reasoning] in all: 15",
                "[answer] 15",
            ],
            ["perception", "right", "reasoning", "right", "right"],
        ),
        (
            DOMINOES,
            [
                "[perception] tile 3: 3 and 5",
                "[perception] tile 1: 3 and 4",
                "[perception] tile 2: 6 and 1",
                "[reasoning] dots by tile: 7, 7",
                "[reasoning] the most: 8",
                "[reasoning] in all: 14",
                "[answer] 14",
            ],
            ["perception", "perception", "right", "perception", "reasoning", "perception", "perception"],
        ),
        # An answer step is right if the answer checker accepts it.
        (CHART, ["[answer] 4.\n", " [answer] 4", "[answer] four"], ["right", "right", "reasoning"]),
        (PRINT, ['[zoom] {"bbox_2d": "evil", "label": "green plate"}'], ["?"]),
    ],
)
def test_truth_of_hand_written_steps(problem: Problem, texts: list[str], expected: list[str]) -> None:
    assert verdicts(problem, texts) == expected


@families
def test_an_id_regenerates_its_item(name: str) -> None:
    items = [FAMILIES[name].problem("test", i) for i in range(20)]
    assert [problem_by_id(item.id, FAMILIES) for item in items] == items
    undrawn = [dataclasses.replace(item, images=()) for item in items]
    assert [problem_by_id(item.id, FAMILIES, drawn=False) for item in items] == undrawn
    assert len({item.images for item in items}) == 20


def test_tasks_take_turns_and_count_from_the_first_item() -> None:
    pair = [TASKS["chart"], TASKS["figure"]]
    assert item_ids(pair, "test", 3) == [pair[i].item_id("test", n) for i, n in ((0, 0), (1, 0), (0, 1))]
    assert item_ids(pair, "train", 2, first=7) == [pair[0].item_id("train", 7), pair[1].item_id("train", 7)]
    for families, problems in ((pair, 0), ([], 5)):
        with pytest.raises(ValueError, match="split 'test' would be empty"):
            item_ids(families, "test", problems)
    with pytest.raises(ValueError, match="named twice in chart, figure, chart; name it once"):
        item_ids([*pair, pair[0]], "test", 6)


@families
def test_splits_share_no_scene(name: str) -> None:
    family = FAMILIES[name]
    scenes = {
        split: {json.dumps(family.scene(split, i)["content"], sort_keys=True) for i in range(150)}
        for split in ("train", "validation", "test")
    }
    assert not scenes["train"] & scenes["test"]
    assert not scenes["validation"] & (scenes["train"] | scenes["test"])


@families
def test_the_truthful_solution_is_right_and_reaches_the_answer(name: str) -> None:
    types = set()
    for i in range(60):
        problem = FAMILIES[name].problem("validation", i)
        steps = [executed(step) for step in solved(problem, FAMILIES)]
        assert all(v is not None and v.correct for v in FAMILIES[name].verdicts(problem, steps)), (problem.id, steps)
        assert steps[-1].text == f"[answer] {problem.answer}"
        types.add(problem.meta["question_type"])
    assert types == set(FAMILIES[name].question_types)


@families
def test_a_careless_writer_is_always_caught_at_its_first_slip(name: str) -> None:
    for i in range(80):
        problem, rng, slips = FAMILIES[name].problem("train", i), rng_for("slip", name, i), []

        def careless(kind, concept, truth, near, rng=rng, slips=slips):  # type: ignore[no-untyped-def]
            if near and rng.random() < 0.3:
                slips.append(kind)
                return rng.choice(near)
            return truth

        steps = [executed(parse_step(text)) for text in FAMILIES[name].solve(problem.meta["scene"], careless)]
        truth = FAMILIES[name].verdicts(problem, steps)
        assert None not in truth
        assert next((v.error_kind for v in truth if not v.correct), None) == (slips[0] if slips else None)


@families
def test_reading_never_raises_on_foreign_text(name: str) -> None:
    problem = FAMILIES[name].problem("train", 0)
    texts = ["", "[zoom] {", "[zoom] []", "[answer] ", "[reasoning] 1 + 1 = ", "[perception] row 1: " + "9" * 5000]
    texts += ['[zoom] {"bbox_2d": [' + "9" * 400 + ', 0, 1, 1], "label": "red plate"}']
    texts += [s.text for other in FAMILIES for s in solved(FAMILIES[other].problem("train", 1), FAMILIES)]
    for text in texts:
        FAMILIES[name].verdicts(problem, [parse_step(text)])
        FAMILIES[name].verdicts(problem, [executed(parse_step(text))])


def test_fine_print_is_not_in_the_overview() -> None:
    """The overview shows the same plate for every print; at full size the prints differ by twice the ink."""
    at_size, overview = [], []
    for print_ in PRINTS:
        image = Image.new("RGB", (512, 512), "white")
        image.paste(_printed(PALETTE["green"], print_), (200, 300))
        at_size.append(np.asarray(image, dtype=int))
        overview.append(np.asarray(image.resize((OVERVIEW_SIDE, OVERVIEW_SIDE), Image.Resampling.BICUBIC), dtype=int))
    for other in range(1, len(PRINTS)):
        assert abs(at_size[other] - at_size[0]).max() == 2 * INK
        inner = slice(77, 83), slice(54, 62)  # clear of the field's edge, where the resampling window is cut
        assert abs(overview[other] - overview[0])[inner].max() <= 1


def test_images_are_plain_png() -> None:
    for family in TASKS.values():
        with Image.open(io.BytesIO(family.problem("train", 0).images[0])) as image:
            assert image.format == "PNG"


def test_a_zoom_is_judged_by_the_region_it_showed_and_not_at_all_if_it_showed_none() -> None:
    zoom = Step("zoom", '[zoom] {"bbox_2d": [0, 0, 1, 1], "label": "green plate"}', Region(256, 0, 384, 128))
    place = parse_step("[perception] the green plate is in row 1 column 3")
    assert TASKS["fine_print"].verdicts(PRINT, [place, zoom])[1].correct  # type: ignore[union-attr]
    unseen = parse_step('[zoom] {"bbox_2d": [500, 0, 750, 250], "label": "green plate"}')
    assert TASKS["fine_print"].verdicts(PRINT, [place, unseen])[1] is None


def test_unknown_names_are_named_with_a_fix() -> None:
    with pytest.raises(ValueError, match="did you mean 'count_grid'"):
        load_task("count_gird")
    with pytest.raises(ValueError, match="has no FAMILY"):
        load_task("vlprm.steps")
    with pytest.raises(ValueError, match="unknown split 'tset'"):
        TASKS["chart"].problem("tset", 0)
    with pytest.raises(ValueError, match="not an item id"):
        problem_by_id("chart@1/test", TASKS)


def a_module(folder: Path, module: str, name: str) -> None:
    """An importable module of a user, with a family of that name."""
    (folder / f"{module.replace('.', '/')}.py").write_text(
        "import dataclasses\nfrom vlprm.tasks import chart\n"
        f"FAMILY = dataclasses.replace(chart.FAMILY, name={name!r})\n"
    )


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "others").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "others"]:
        del sys.modules[name]


def test_a_task_can_come_from_a_module_path(elsewhere: Path) -> None:
    a_module(elsewhere, "others.bars", "bars")
    tasks = load_tasks(["figure", "others.bars"])
    assert list(tasks) == ["figure", "bars"]
    item = tasks["bars"].problem("test", 3)
    assert problem_by_id(item.id, tasks) == item
    assert "bars" not in TASKS


def test_no_name_in_a_file_is_imported(elsewhere: Path) -> None:
    a_module(elsewhere, "others.bars", "bars")
    for name in ("others.bars", "bars"):
        with pytest.raises(
            ValueError, match=rf"items belong to the task '{name}', but --tasks gives .*chart.*; add the task"
        ):
            problem_by_id(f"{name}@1/test/000000", TASKS)
    assert "others.bars" not in sys.modules


def test_two_families_of_one_name_are_refused(elsewhere: Path) -> None:
    a_module(elsewhere, "others.bars", "bars")
    a_module(elsewhere, "others.more", "bars")
    a_module(elsewhere, "others.mine", "chart")
    with pytest.raises(ValueError, match=r"two of the tasks others\.bars, others\.more have the same name"):
        load_tasks(["others.bars", "others.more"])
    with pytest.raises(
        ValueError, match=r"the task of others\.mine has the name of a built-in one, 'chart'; rename it"
    ):
        load_tasks(["others.mine"])
    assert load_tasks(["vlprm.tasks.chart"]) == {"chart": TASKS["chart"]}
