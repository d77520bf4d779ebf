"""Zooms: every text is a box or a typed refusal, boxes of every dialect name the same region, and regions obey
the policy."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import view_of
from vlprm.images import whole_pixels
from vlprm.schema import BLANK, Region, Step
from vlprm.zoom.boxes import DIALECTS, to_region
from vlprm.zoom.execute import View, Zoom, execute_zoom, parse_zoom, with_refusal_message
from vlprm.zoom.policy import REFUSALS, ZOOM_TOOL, Form, ZoomPolicy, refusal_text

FORMS: tuple[Form, ...] = ("tagged", "qwen_tool")
QWEN = ZoomPolicy(form="qwen_tool")
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["bbox_2d", "label", "img_idx", "source", "name", "arguments"]), inner)
    ),
    max_leaves=8,
)


def tagged(box: str, more: str = "") -> str:
    return f'[zoom] {{"bbox_2d": {box}{more}}}'


def called(box: str, more: str = "", name: str = "image_zoom_in_tool") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{"bbox_2d": {box}{more}}}}}\n</tool_call>'


def zoom(box: str, policy: ZoomPolicy | None = None, size: tuple[int, int] = (400, 200), more: str = "") -> Step | str:
    return execute_zoom(Step("zoom", tagged(box, more)), "relative_1000", [view_of(size)], (), policy)


def region(box: str, policy: ZoomPolicy | None = None, size: tuple[int, int] = (400, 200), more: str = "") -> Region:
    step = zoom(box, policy, size, more)
    assert isinstance(step, Step), step
    assert step.region is not None
    return step.region


@given(st.text() | json_values.map(lambda v: "[zoom] " + json.dumps(v)), st.sampled_from(FORMS))
def test_texts_parse_or_are_refused(text: str, form: Form) -> None:
    for written in (text, f"<tool_call>{text}</tool_call>"):
        found = parse_zoom(written, form)
        assert found in REFUSALS if isinstance(found, str) else len(found.box) == 4


def as_text(arguments: str) -> str:
    """A tool call whose arguments are a JSON text."""
    return f"<tool_call>{json.dumps({'name': 'image_zoom_in_tool', 'arguments': arguments})}</tool_call>"


def as_xml(function: str = "image_zoom_in_tool", **parameters: str) -> str:
    """A tool call as the template of Qwen3.5 writes it."""
    given = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in parameters.items())
    return f"<tool_call>\n<function={function}>\n{given}</function>\n</tool_call>"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (tagged("[0, 0, 500, 500]", ', "label": "cup"'), Zoom((0, 0, 500, 500), 0, "cup")),
        (tagged("[0, 0, 500.5, 5e2]", ', "label": 3, "img_idx": 2.0'), Zoom((0, 0, 500.5, 500), 2)),
        (tagged("[0, 0, 1, 1]", ', "source": "original_image"'), Zoom((0, 0, 1, 1), 0)),
        (tagged("[0, 0, 1, 1]", ', "source": "observation_2"'), Zoom((0, 0, 1, 1), 4)),  # after three images
        (tagged("[0, 0, 1, 1]", ', "source": "observation_0"'), "unknown_image"),
        (tagged("[0, 0, 1, 1]", ', "source": "observation_2", "img_idx": 0'), "unknown_image"),
        (tagged("[0, 0, 1, 1]", ', "source": "the first"'), "unknown_image"),
        (tagged("[0, 0, 1, 1]", ', "img_idx": -1'), "unknown_image"),
        (tagged("[0, 0, 1, 1]", ', "img_idx": true'), "unknown_image"),
        (tagged("[0, 0, 1, 1]", ', "img_idx": 1e999'), "unknown_image"),
        (tagged("[0, 0, 1, 1]", ', "bbox_2d": [0, 0, 2, 2]'), "bad_json"),  # which of the two is meant?
        (tagged("[[0, 0], [1, 1]]"), "wrong_arity"),
        (tagged("[0, 0, true, 1]"), "wrong_arity"),
        (tagged("[0, 0, NaN, 1]"), "non_finite"),
        (tagged(f"[0, 0, 1, {'9' * 400}]"), "non_finite"),
        (tagged("[5, 0, 5, 1]"), "inverted"),
        (tagged("__import__('os')"), "bad_json"),
        ("[zoom] " + "[" * 100_000, "bad_json"),
        (called("[0, 0, 1, 1]"), "bad_json"),
    ],
)
def test_a_tagged_zoom_is_read_strictly(text: str, found: object) -> None:
    assert parse_zoom(text, "tagged", problem_images=3) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (called("[0, 0, 1, 1]", ', "label": "a", "img_idx": 1'), Zoom((0, 0, 1, 1), 1, "a")),
        ("Let me look.\n" + called("[0, 0, 1, 1]") + " \n", Zoom((0, 0, 1, 1))),
        (called("[0, 0, 1, 1]", name="run_code"), "bad_json"),
        (called("[0, 0, 1, 1]") + " so", "bad_json"),
        (called("[0, 0, 1, 1]") + called("[0, 0, 1, 1]"), "several_calls"),
        (called("[0, 0, 1, 1]") + "\nand\n" + called("[0, 0, 1, 1]"), "several_calls"),
        (as_text('{"bbox_2d": [0, 0, 1, 1], "img_idx": 1}'), Zoom((0, 0, 1, 1), 1)),
        (as_text('{"bbox_2d": [0, 0, 1, 1], "bbox_2d": [0, 0, 2, 2]}'), "bad_json"),
        (as_text("[0, 0, 1, 1]"), "bad_json"),
        (
            as_xml(bbox_2d="[0, 0, 1, 1]", label="3 cups\nand [1] plate", img_idx="1"),
            Zoom((0, 0, 1, 1), 1, "3 cups\nand [1] plate"),
        ),
        ("Let me look.\n" + as_xml(bbox_2d="[0, 0, 1, 1]"), Zoom((0, 0, 1, 1))),
        (as_xml(bbox_2d="[0, 0, 1]"), "wrong_arity"),
        (as_xml(bbox_2d="0, 0, 1, 1"), "bad_json"),
        (as_xml(label="a"), "bad_json"),
        (as_xml("run_code", bbox_2d="[0, 0, 1, 1]"), "bad_json"),
        (
            as_xml(bbox_2d="[0, 0, 1, 1]").replace("</function>", "<parameter=bbox_2d>[0]</parameter></function>"),
            "bad_json",
        ),
        (as_xml(bbox_2d="[0, 0, 1, 1]").removesuffix("</tool_call>"), "bad_json"),
        (called("[0, 0, 1, 1]").removesuffix("</tool_call>"), "bad_json"),
        (tagged("[0, 0, 1, 1]"), "bad_json"),
    ],
)
def test_a_tool_call_is_read_strictly(text: str, found: object) -> None:
    assert parse_zoom(text, "qwen_tool") == found


PIECES = ["[", "]", "{", "}", '"', ",", ":", "\\", "\\u12", "NaN", "-", "1e999", "null", "\x00", "\ud800", "\n\n"]


def any_text(rng: random.Random) -> str:
    """A zoom with arbitrary numbers; half of the texts have characters dropped, doubled and inserted."""
    numbers = [rng.choice([-5, 0, 1, 250.5, 500, 999, 1000, 1001, 2000, 1e308, rng.uniform(0, 1e3)]) for _ in range(4)]
    box = sorted(numbers[::2]) + sorted(numbers[1::2]) if rng.random() < 0.9 else numbers
    written = rng.choice([tagged, called])
    text = written(json.dumps([box[0], box[2], box[1], box[3]]), f', "img_idx": {rng.randrange(-1, 4)}')
    for _ in range(rng.choice([0, 0, 1, 2, 8])):
        at, to = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        text = text[:at] + rng.choice([rng.choice(PIECES), text[at:to] * 2, "", str(rng.randrange(2000))]) + text[to:]
    return text


def test_hundred_thousand_texts_are_zooms_or_refused() -> None:
    """Nothing raises, and every refusal has a message."""
    rng = random.Random(0)
    images, crops = [view_of((400, 200))], [View(Region(10, 10, 60, 90), (64, 96))]
    policies = [replace(ZoomPolicy(), refuse_duplicates=True), replace(QWEN, expand=True, padding=0.5)]
    seen = dict.fromkeys([*REFUSALS, "zoom"], 0)
    for i in range(100_000):
        step, policy, dialect = Step("zoom", any_text(rng)), policies[i % 2], rng.choice([*DIALECTS])
        found = execute_zoom(step, dialect, images, crops, policy)
        if isinstance(found, str):
            assert with_refusal_message(step, found, dialect, images, crops, policy).told
        seen[found if isinstance(found, str) else "zoom"] += 1
    assert {kind for kind, count in seen.items() if not count} <= {"budget", "aspect"}


@pytest.mark.parametrize("dialect", DIALECTS)
@given(
    inside=st.tuples(*[st.floats(0, 0.9)] * 2, *[st.floats(0.01, 0.1)] * 2),
    parent=st.tuples(*[st.integers(0, 500)] * 2, *[st.integers(8, 500)] * 2),
    seen=st.tuples(st.integers(28, 2000), st.integers(28, 2000)),
)
def test_a_box_is_the_region_of_its_shares_of_an_image_or_a_crop(
    dialect: str, inside: tuple[float, ...], parent: tuple[int, ...], seen: tuple[int, int]
) -> None:
    left, top, width, height = parent
    shown = Region(left, top, left + width, top + height, 1)
    x, y, w, h = inside
    across, down = DIALECTS[dialect](seen)
    found = to_region((x * across, y * down, (x + w) * across, (y + h) * down), dialect, shown, seen)
    expected = (left + x * width, top + y * height, left + (x + w) * width, top + (y + h) * height)
    assert (found.x0, found.y0, found.x1, found.y1) == pytest.approx(expected, abs=1e-6)
    assert found.image == 1


def test_a_crop_of_a_crop_is_a_region_of_the_image() -> None:
    """In each dialect: the lower right quarter of a crop, which has whole pixels although its region was fractional."""
    images, policy = [view_of((640, 480)), View(Region(0, 0, 100, 80, 1), (64, 64))], ZoomPolicy()
    crop = View(whole_pixels(Region(10.4, 9.6, 49.2, 38.3, 1)), (320, 256))
    assert crop.region == Region(10, 9, 50, 39, 1)
    quarter = {"relative_1000": [500, 500, 1000, 1000], "relative_1": [0.5, 0.5, 1, 1]}
    for dialect, numbers in (quarter | {"absolute_resized": [160, 128, 320, 256]}).items():
        box = json.dumps(numbers)
        for more in (', "img_idx": 2', ', "source": "observation_1"'):
            step = execute_zoom(Step("zoom", tagged(box, more)), dialect, images, [crop], policy)
            assert isinstance(step, Step)
            assert step.region == Region(30, 24, 50, 39, 1)
    # A box outside of the crop cannot be requested from it.
    beyond = Step("zoom", tagged("[0, 0, 4000, 4000]", ', "img_idx": 2'))
    assert execute_zoom(beyond, "relative_1000", images, [crop]) == replace(beyond, region=crop.region)


def test_a_zoom_reaches_the_frame_and_no_further() -> None:
    assert region("[500, 500, 1500, 1500]") == Region(200, 100, 400, 200)
    assert zoom("[0, 0, 1, 1]") == "too_small"
    assert zoom("[1001, 0, 1200, 100]") == "out_of_frame"
    assert zoom("[1e999, 0, 1, 1]") == "non_finite"
    assert zoom("[0, 0, 1e308, 500]", size=(4000, 1000)) == "non_finite"
    assert zoom("[0, 0, 5e-324, 500]") == "too_small"
    assert zoom("[0, 0, 1000, 10]", size=(4000, 1000)) == "aspect"
    assert zoom("[0, 0, 500, 500]", more=', "img_idx": 1') == "unknown_image"
    with pytest.raises(ValueError, match="unknown box dialect 'pixels'"):
        to_region((0, 0, 1, 1), "pixels", Region(0, 0, 1, 1), (1, 1))


def test_a_region_grows_about_its_centre_and_shifts_into_the_image() -> None:
    grows = ZoomPolicy(min_side=32, expand=True)
    assert region("[500, 500, 505, 510]", grows) == Region(185, 85, 217, 117)
    assert region("[0, 0, 5, 10]", grows) == Region(0, 0, 32, 32)
    assert region("[995, 990, 1000, 1000]", grows) == Region(368, 168, 400, 200)
    assert region("[0, 0, 1000, 10]", grows, (4000, 1000)) == Region(0, 0, 4000, 40), "as wide as its aspect lets it"
    assert zoom("[0, 0, 500, 500]", grows, (400, 20)) == "too_small", "where there are no more pixels"
    assert region("[250, 250, 500, 500]", ZoomPolicy(padding=0.5)) == Region(50, 25, 250, 125)
    assert region("[0, 0, 500, 500]", ZoomPolicy(padding=0.5)) == Region(0, 0, 400, 200)


def test_what_was_shown_may_be_refused_again() -> None:
    step, crop = Step("zoom", tagged("[250, 250, 501, 501]")), View(Region(100, 50, 201, 101), (64, 64))
    once = ZoomPolicy(refuse_duplicates=True)
    assert execute_zoom(step, "relative_1000", [view_of((400, 200))], [crop], once) == "duplicate"
    assert isinstance(execute_zoom(step, "relative_1000", [view_of((400, 200))], [crop]), Step)
    blank = View(Region(0, 0, 64, 64, BLANK), (64, 64))
    of_it = Step("zoom", tagged("[0, 0, 500, 500]", ', "img_idx": 1'))
    found = execute_zoom(of_it, "relative_1000", [view_of((400, 200))], [blank])
    assert found == replace(of_it, region=Region(0, 0, 32, 32, BLANK))


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_says_in_the_policys_own_numbers_what_is_wrong(refusal: str) -> None:
    text = refusal_text(refusal, ZoomPolicy(), (1000, 1000), 3)  # type: ignore[arg-type]
    assert text.startswith(f"{refusal}: ")
    assert "{" not in text.replace('{"bbox_2d"', "")
    far = with_refusal_message(
        Step("zoom", tagged("[900, 0, 950, 9]")), "out_of_frame", "absolute_resized", [view_of((640, 480))], (), QWEN
    )
    assert "from 0 to 640 and from 0 to 480" in far.told
    for policy in (ZoomPolicy(), QWEN):  # the example is one
        assert isinstance(parse_zoom(policy.example((1000, 1000)), policy.form), Zoom)
    assert ZOOM_TOOL["function"]["parameters"]["required"] == ["bbox_2d", "label", "img_idx"]
    assert with_refusal_message(Step("zoom", ""), "bad_json", "relative_1", [], (), ZoomPolicy()).told.startswith(
        "bad_json: "
    )


@pytest.mark.parametrize(
    "fields", [{"min_side": 0}, {"max_aspect": 300}, {"padding": -1}, {"enlarge": 2}, {"max_zooms": -1}]
)
def test_a_policy_that_makes_no_sense_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="zoom: "):
        ZoomPolicy(**fields)  # type: ignore[arg-type]
