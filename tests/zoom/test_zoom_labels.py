"""Labels and counterfactual crops of zooms, on hand-drawn regions and on fine print, which knows its true regions."""

import dataclasses
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import executed, solved
from vlprm.data.dataset import tree_row
from vlprm.schema import BLANK, Problem, Region, Step, StepLabel, StepTree, TreeNode
from vlprm.steps import parse_step
from vlprm.tasks import TASKS, known_regions
from vlprm.zoom.counterfactual import blank_like, elsewhere, prefix_with
from vlprm.zoom.labels import ZoomLabel, label_tree, label_zooms, true_region, zoom_label
from vlprm.zoom.policy import TOOL_NAME, Form

PLATE = Region(100, 100, 200, 150)
SHOWN = Step("zoom", "[zoom] {}", Region(50, 50, 250, 250))
UNSEEN = parse_step('[zoom] {"bbox_2d": [0, 0, 1, 1], "label": "green plate"}')


@pytest.mark.parametrize(
    ("region", "earlier", "coverage", "tightness", "credit"),
    [
        (Region(100, 100, 200, 200), [], 1.0, 0.5, "correct"),
        (Region(100, 100, 150, 200), [], 0.5, 0.5, "erroneous"),
        (Region(100, 100, 190, 150), [], 0.9, 1.0, "correct"),
        (Region(300, 300, 400, 400), [], 0.0, 0.0, "erroneous"),
        (Region(100, 100, 200, 150, 1), [], 0.0, 0.0, "erroneous"),  # a crop of another image
        (Region(100, 100, 200, 200), [Region(90, 90, 200, 200)], 1.0, 0.5, "redundant"),
        (Region(100, 100, 200, 200), [Region(0, 0, 200, 200)], 1.0, 0.5, "correct"),  # it was shown at a quarter
        (Region(300, 300, 400, 400), [Region(300, 300, 400, 400)], 0.0, 0.0, "erroneous"),
    ],
)
def test_shares_of_areas_make_the_class(
    region: Region, earlier: list[Region], coverage: float, tightness: float, credit: str
) -> None:
    label = zoom_label(dataclasses.replace(SHOWN, region=region), earlier, PLATE)
    assert (label.coverage, label.tightness, label.credit) == (coverage, tightness, credit)


def test_what_is_not_known_is_not_guessed() -> None:
    assert zoom_label(SHOWN, [], None) == ZoomLabel(True)
    assert zoom_label(SHOWN, [], None).credit is None
    assert zoom_label(SHOWN, [Region(50, 50, 250, 240)], None).credit == "redundant"
    assert zoom_label(UNSEEN, [], None).credit == "erroneous"
    assert zoom_label(UNSEEN, [], PLATE) == ZoomLabel(False, 0.0)


def test_a_task_of_ones_own_knows_its_true_regions() -> None:
    family = dataclasses.replace(TASKS["fine_print"], name="mine")
    problem = family.problem("test", 0, drawn=False)
    assert known_regions(problem, {"mine": family}) == family.regions(problem.meta["scene"]) != {}
    assert known_regions(problem, TASKS) == {}


def test_use_is_a_difference_of_values_where_both_have_a_result() -> None:
    seen, blind = StepLabel(mc_correct=3, mc_valid=4, mc_total=4), StepLabel(mc_correct=1, mc_valid=2, mc_total=4)
    assert zoom_label(SHOWN, [], PLATE, seen, blind).used == 0.25
    assert zoom_label(SHOWN, [], PLATE, seen, StepLabel(mc_total=4)).used is None
    assert zoom_label(SHOWN, [], PLATE, seen).used is None


def test_a_dataset_tells_of_each_zoom_what_became_of_it() -> None:
    """A zoom is compared with the crops above it in its branch, and with the true region if that is known."""
    problem = TASKS["fine_print"].problem("train", 0)
    right = [executed(step) for step in solved(problem)]
    at = next(k for k, step in enumerate(right) if step.region)
    beside = dataclasses.replace(right[at], region=Region(0, 0, 8, 8))
    steps = [(right[k], k - 1) for k in range(at + 1)] + [(right[at], at), (beside, at - 1), (UNSEEN, at - 1)]
    tree = StepTree(problem.id, tuple(TreeNode(*one) for one in steps), ())

    def credits(problem: Problem) -> list[str | None]:
        told = [
            e["zoom"] for e in json.loads(tree_row(problem, tree, [], {}, known_regions(problem, TASKS))["evidence"])
        ]
        assert [k for k, zoom in enumerate(told) if zoom is None] == list(range(at))
        return [zoom["credit"] for zoom in told[at:]]

    assert credits(problem) == ["correct", "redundant", "erroneous", "erroneous"]
    assert credits(dataclasses.replace(problem, task="mine")) == [None, "redundant", None, "erroneous"]


@pytest.mark.parametrize("form", ["tagged", "qwen_tool"])
def test_a_zoom_in_either_form_is_credited_by_the_region_that_it_names(form: Form) -> None:
    """It asks for the red plate. The first crop shows the green one, the second the red one."""
    asked = {"bbox_2d": [0, 0, 9, 9], "label": "red plate"}
    call = f"I look closer.\n<tool_call>\n{json.dumps({'name': TOOL_NAME, 'arguments': asked})}\n</tool_call>"
    text = f"[zoom] {json.dumps(asked)}" if form == "tagged" else call
    truths = {"red plate": Region(300, 300, 400, 400), "green plate": PLATE}
    steps = [dataclasses.replace(parse_step(text), region=truths[name]) for name in ("green plate", "red plate")]
    tree = StepTree("p", tuple(TreeNode(step, -1) for step in steps), ())
    for labels in (label_tree(tree, truths), label_zooms(steps, truths)):
        assert [(label.credit, label.coverage) for label in labels.values()] == [("erroneous", 0.0), ("correct", 1.0)]


def test_the_right_solution_of_fine_print_zooms_correctly() -> None:
    family = TASKS["fine_print"]
    for i in range(40):
        problem = family.problem("train", i)
        truths = family.regions(problem.meta["scene"])
        steps = [executed(step) for step in solved(problem)]
        labels = label_zooms(steps, truths)
        assert [steps[k].kind for k in labels] == ["zoom"] * len(truths)
        assert {label.credit for label in labels.values()} == {"correct"}
        again = label_zooms([*steps[:2], *steps[1:2]], truths)
        assert [label.credit for label in again.values()] == ["correct", "redundant"]
        assert true_region(UNSEEN, truths) is not None
        nameless = [dataclasses.replace(steps[k], text="[zoom] {}") for k in labels]
        assert [true_region(step, truths) for step in nameless] == list(truths.values())
    assert TASKS["chart"].regions({}) == {}


@given(st.tuples(*[st.floats(0, 300)] * 2, *[st.floats(9, 200)] * 2), st.integers(0, 9))
def test_a_control_has_the_size_of_what_it_replaces(box: tuple[float, ...], seed: int) -> None:
    x, y, width, height = box
    own, frame = Region(x, y, x + width, y + height), Region(0, 0, 512, 512)
    other = elsewhere(own, frame, PLATE, random.Random(seed))
    assert (other.x1 - other.x0, other.y1 - other.y0) == pytest.approx((width, height))
    assert other.overlap(frame) == pytest.approx(other.area)
    assert other.overlap(PLATE) == 0, "there is room for it beside what it avoids"
    assert blank_like(own) == dataclasses.replace(own, image=BLANK)
    steps = [parse_step("[perception] a"), SHOWN, parse_step("[answer] b")]
    assert prefix_with(steps, 1, other) == (steps[0], Step("zoom", SHOWN.text, other))
