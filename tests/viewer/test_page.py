"""The page: text of models cannot become markup, nothing is fetched from elsewhere, and it stays small."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from eval.runs import curves, measures
from tests.eval.test_measure import POOLS
from tests.shown import EVIL, IMAGE, SHOWN_EVIL, Shown, hostile, problem, tree
from vlprm.images import png
from vlprm.viewer import page
from vlprm.viewer.pictures import MAX_BYTES, thumbnail
from vlprm.viewer.sections import results_section
from vlprm.viewer.views import Joined, facts, plain, visible


def results() -> dict:  # type: ignore[type-arg]
    return {
        "n_problems": 3, "n_candidates": 2, "aggregation": "min", "judge": EVIL,
        "no_answer": {"candidates": 5, "problems": 1}, "failed": 1,
        "selection": measures.selection(POOLS, "min"), "differences": measures.differences(POOLS, "min"),
        "best_of_n": measures.mean_curve(POOLS, "min"),
        "curves": curves.accuracy_curves(POOLS, "min", scored=True),
        "by_question_type": measures.by_question_type(POOLS, "min"),
        "steps": measures.steps(POOLS, "min"), "seconds": {"trees": 1.0},
        "labels": {name: {"precision": 1, "recall": 1, "f1": 1, "labelled": 1} for name in ("mc", "judge", "fused")},
    }  # fmt: skip


def rendered() -> str:
    return page.render_page("a run", [results_section(results())], Shown([hostile(), problem(1)]))


def data(html: str, name: str) -> object:
    (text,) = re.findall(f'<script type="application/json" id="{name}">(.*?)</script>', html, re.DOTALL)
    return json.loads(text)


def test_what_models_wrote_is_data_to_the_letter_and_never_markup() -> None:
    html = rendered()
    assert "<img" not in html
    assert "<!--" not in html
    assert len(re.findall("<script>", html)) == 1  # the page's own
    assert "&lt;script&gt;alert(&#39;x&#39;)" in html  # the judge's name, in the results
    step = data(html, "problem-0")["candidates"][0]["steps"][0]  # type: ignore[index]
    assert (step["text"], step["said"]) == (SHOWN_EVIL, SHOWN_EVIL)
    html.encode()


def test_the_policy_allows_this_script_and_style_and_no_address() -> None:
    html = rendered()
    (policy,) = re.findall('Content-Security-Policy" content="(.*?)"', html)
    assert "default-src &#39;none&#39;" in policy
    assert "unsafe" not in policy
    assert not re.search(r"(?:src|href)=[\"'](?!#|data:)", html)
    assert "url(" not in html
    assert " style=" not in html, "the policy would drop it"


def test_numbers_that_are_none_and_fields_without_a_value_are_left_out() -> None:
    shown = plain(hostile())
    assert "reward" not in shown["candidates"][0]["steps"][1]
    assert shown["candidates"][1] == {"stop": "length"}
    assert shown["tree"][0]["parent"] == -1
    assert visible("a\tb\nc é 漢") == "a\tb\nc é 漢"


def test_facts_are_what_one_filters_by() -> None:
    found = facts(problem(2))
    assert found["outcomes"] == {"majority": True, "prm_min": False}
    assert (found["right"], found["of"], found["kinds"]) == (1, 3, ["reasoning"])
    assert [facts(problem(at))["differ"] for at in (0, 1, 2, 3)] == [False, False, True, True]


def test_an_image_is_in_the_page_once_however_many_problems_have_it() -> None:
    html = page.render_page("a run", [], Shown([problem(at) for at in range(5)]))
    assert html.count('"data:image/png;base64,') == 1


def test_a_page_says_of_how_many_problems_it_holds_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_PROBLEMS", 3)
    html = page.render_page("a run", [], Shown([problem(at) for at in range(5)]))
    assert 'data-total="5"' in html
    assert len(data(html, "facts")) == 3  # type: ignore[arg-type]
    monkeypatch.setattr(page, "MAX_BYTES", 10_000)
    long = Shown([problem(at) for at in range(2)])
    assert len(data(page.render_page("a run", [], long), "facts")) < 2  # type: ignore[arg-type]


def test_images_are_made_to_fit() -> None:
    noise = png(Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)))
    small = thumbnail(noise)
    assert len(small) <= MAX_BYTES
    width, height = Image.open(io.BytesIO(small)).size
    assert width / height == pytest.approx(4 / 3, rel=0.02)
    assert thumbnail(IMAGE) == IMAGE, "a small file is itself"


def test_an_image_that_cannot_be_read_leaves_the_page_standing() -> None:
    html = page.render_page("a run", [], Shown([problem(0)], (b"no image", IMAGE)))
    assert [image is None for image in data(html, "problem-0")["images"]] == [True, False]  # type: ignore[index]


def test_sources_are_joined_in_order() -> None:
    joined = Joined(Shown([problem(0), problem(1)]), Shown([tree()], ()))
    assert [joined.view(at).id for at in range(len(joined))] == ["item/0000", "item/0001", "tree/0"]
    assert joined.images(2) == ()
    with pytest.raises(IndexError):
        joined.view(3)
