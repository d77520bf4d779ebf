"""Steps, answers, boxes and frames: nothing lost, nothing guessed, nothing raised."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlprm.actions import REFUSALS, execute_zoom, parse_box
from vlprm.answers import extract_answer, is_correct
from vlprm.images import DIALECTS, from_region, open_image, to_region
from vlprm.schema import Region, Solution, Step, from_json, to_json
from vlprm.steps import join_steps, parse_step, split_steps


@given(
    st.lists(st.sampled_from(["[answer] 4", "[perception] x", "\n\n", "\n", " ", "a\nb", "[zoom] {}", ""])).map("".join)
)
def test_no_character_is_lost(text: str) -> None:
    steps = split_steps(text)
    assert join_steps(steps) == text
    if text.strip():
        assert all(step.text.strip() for step in steps)


def test_kinds_come_from_tags() -> None:
    kinds = [s.kind for s in split_steps("[perception] a\n\n[reasoning] b\n\nno tag\n\n[other] c\n\n[answer] d")]
    assert kinds == ["perception", "reasoning", "other", "other", "answer"]


@pytest.mark.parametrize(
    ("text", "answer_type", "expected"),
    [
        ("[answer] 7", "integer", "7"),
        ("[answer] 1,024.", "integer", "1024"),
        ("[answer] -0", "integer", "0"),
        ("[answer] seven", "integer", None),
        ("[answer] 7 apples", "integer", None),
        ("[answer] " + "9" * 50, "integer", None),
        ("[answer] Dark  Red.", "word", "dark red"),
        ("[answer]", "word", None),
        ("[answer] (b)", "choice", "B"),
        ("[answer] AB", "choice", None),
        ("[reasoning] 7", "integer", None),
    ],
)
def test_answers_by_type(text: str, answer_type: str, expected: str | None) -> None:
    assert extract_answer([parse_step("[reasoning] x"), parse_step(text)], answer_type) == expected  # type: ignore[arg-type]


def test_no_result_is_not_wrong() -> None:
    assert is_correct("7", "7", "integer") is True
    assert is_correct("8", "7", "integer") is False
    assert is_correct(None, "7", "integer") is None
    assert extract_answer([], "word") is None
    with pytest.raises(ValueError, match="gold answer 'seven' is not of type integer"):
        is_correct("7", "seven", "integer")


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["bbox_2d", "label"]), inner),
    max_leaves=8,
)


@given(st.text() | json_values.map(lambda v: "[zoom] " + json.dumps(v)))
def test_boxes_parse_or_are_refused(text: str) -> None:
    box = parse_box(text)
    assert box in REFUSALS if isinstance(box, str) else len(box) == 4


@pytest.mark.parametrize("dialect", DIALECTS)
@given(
    x=st.tuples(st.floats(0, 900), st.floats(1, 100)), y=st.tuples(st.floats(0, 500), st.floats(1, 100)),
    seen=st.tuples(st.integers(28, 2000), st.integers(28, 2000)),
)  # fmt: skip
def test_frames_round_trip(dialect: str, x: tuple[float, float], y: tuple[float, float], seen: tuple[int, int]) -> None:
    region = Region(x[0], y[0], x[0] + x[1], y[0] + y[1])
    back = to_region(from_region(region, dialect, (1000, 600), seen), dialect, (1000, 600), seen)
    assert (back.x0, back.y0, back.x1, back.y1) == pytest.approx((region.x0, region.y0, region.x1, region.y1), abs=1e-6)


def test_a_zoom_reaches_the_frame_and_no_further() -> None:
    def zoom(box: str) -> Step | str:
        return execute_zoom(Step("zoom", f'[zoom] {{"bbox_2d": {box}}}'), "relative_1000", (400, 200), (128, 64))

    assert zoom("[500, 500, 1500, 1500]").region == Region(200, 100, 400, 200)  # type: ignore[union-attr]
    assert zoom("[0, 0, 1, 1]") == "too_small"
    assert zoom("[1001, 0, 1200, 100]") == "out_of_frame"
    assert zoom("[1e999, 0, 1, 1]") == "non_finite"
    huge = Step("zoom", '[zoom] {"bbox_2d": [0, 0, 1e308, 500]}')
    assert execute_zoom(huge, "relative_1000", (4000, 1000), (1, 1)) == "non_finite"
    assert zoom("[0, 0, 5e-324, 500]") == "too_small"
    assert (
        execute_zoom(Step("zoom", '[zoom] {"bbox_2d": [0, 0, 1, 0.01]}'), "relative_1", (4000, 1000), (1, 1))
        == "aspect"
    )
    with pytest.raises(ValueError, match="unknown box dialect 'pixels'"):
        to_region((0, 0, 1, 1), "pixels", (1, 1), (1, 1))


def test_records_carry_their_schema() -> None:
    solution = Solution("p", (Step("zoom", "[zoom] {}", Region(0, 0, 1.5, 2)),), None, "length", 7)
    record = json.loads(json.dumps(to_json(solution)))
    assert from_json(Solution, record) == solution
    with pytest.raises(ValueError, match="record has schema 0"):
        from_json(Solution, {**record, "schema": 0})
    with pytest.raises(ValueError, match="not a Solution record"):
        from_json(Solution, {**record, "tokens": "many"})
    with pytest.raises(ValueError, match="x0 < x1"):
        Region(3, 0, 1, 1)


def test_images_are_opened_safely() -> None:
    with pytest.raises(ValueError, match="the chart cannot be read"):
        open_image(b"\x89PNG\r\n\x1a\n half a file", "the chart")
