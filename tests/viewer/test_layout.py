"""What a reader sees in headless Chromium: the headline, the charts, both widths, the images, the text."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from eval.solve import OneProblem
from tests.browser import opened_page
from tests.shown import Shown, problem, tree
from tests.viewer.test_page import results
from vlprm.images import png
from vlprm.schema import Problem, Region, Solution, Step
from vlprm.search import Cost, ScoredSolution, SearchResult
from vlprm.viewer.page import render_page
from vlprm.viewer.sections import headline_of, results_section, synthesis_section
from vlprm.viewer.views import CandidateView, Problems, ProblemView, StepView

TEXTS = Path(__file__).parents[1] / "fixtures" / "page_texts.jsonl"
SMALL, WIDE = png(Image.new("RGB", (60, 40), "white")), png(Image.new("RGB", (900, 300), "white"))
PHONE = {"width": 400, "height": 800}
LONG = "best_of_everything_that_has_a_very_long_name_of_its_own_and_no_space"
COUNTS = {"steps": 12_345, "labelled": 12_000, "wrong": 7_000}
SYNTHESIS = {
    "trees": {
        "trees": 1_600, "mixed": 1_452, "rollouts": 110_292, "rollouts_saved": 0.25, "failures": {"no_image": 3},
        "rollouts_without_result": {"bad_json": 6},
    },
    "sources": {
        "judge": {
            "kind": "a judge", "coverage": 0.9, "failures": {}, "dependence": {},
            "rates": {"specificity": "0.900 (0.850 to 0.950)", "sensitivity/perception": "not known"},
        }
    },
    "steps": {
        "by_source": {"count_grid/both": COUNTS}, "by_kind": {"zoom": COUNTS}, "by_position": {"1": COUNTS},
        "labelled": 12_000, "targets": {"correct": 5_000, "wrong": 7_000, "none": 345}, "error_kinds": {"action": 20},
    },
    "cost": {"rollouts": 1.5, "tokens": 2_700.0},
    "stages": {
        "trees": {"requests": 98_765, "failures": 4, "tokens_read": 123_456_789, "cache_hits": 0.93,
                  "tokens_sampled": 45_678_901, "device_seconds": 98_765.4},
        "judge": {"requests": 9, "failures": 0, "tokens_read": 1, "cache_hits": None, "tokens_sampled": 2,
                  "device_seconds": 0.3},
    },
}  # fmt: skip
TRAINING = {
    "loss": [[20 * i, 1 / i] for i in range(1, 900)], "held_out": [[100, 0.9], [200, 0.8]],
    "reliability": [[0.1, 0.2, 30], [0.9, 0.8, 90]], "last": {"eval_loss": 0.8, "eval_step_auroc": 0.91234},
}  # fmt: skip


def full() -> dict:  # type: ignore[type-arg]
    found = results() | {"training": TRAINING, "calibration": [[0.2, 0.1, 5], [0.8, 0.9, 5]], "n_problems": 1_234}
    (of_type,) = found["by_question_type"].values()
    found["by_question_type"] = {"chart/rise": of_type, "count_grid/both": of_type}
    found["selection"] = found["selection"] | {LONG: {"accuracy": 0.5, "ci": [0.4, 0.6]}}
    return found


def opened(folder: Path, problems: Problems, sections: Sequence[str] = ()) -> str:
    (folder / "report.html").write_text(render_page("a run", sections, problems))  # type: ignore[arg-type]
    return (folder / "report.html").as_uri()


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than the window, and whatever is cut off at its right."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def cut(page: Page) -> list[str]:
    """The visible cells and headings that lie outside of the window and of every part that scrolls."""
    return page.evaluate(
        """() => [...document.querySelectorAll("td, th, h2, h3, p, dd, dt, .step, svg text, button")]
             .filter((one) => one.checkVisibility() && one.getBoundingClientRect().right > innerWidth + 1)
             .filter((one) => one.closest(".scroll") === null).map((one) => one.textContent)"""
    )  # type: ignore[no-any-return]


@pytest.mark.parametrize("width", [400, 700, 1000, 1280])
def test_nothing_is_cut_off_at_any_width(width: int, tmp_path: Path) -> None:
    sections = [results_section(full()), synthesis_section(SYNTHESIS)]
    views = [problem(0), ProblemView(LONG, LONG, LONG, LONG, LONG, 1, problem(0).candidates, {LONG: 0}), tree()]
    with opened_page(opened(tmp_path, Shown(views), sections)) as page:
        page.set_viewport_size({"width": width, "height": 800})
        for place in ("results", "problems", "trees", "problem-0", "problem-1", "problem-2"):
            page.goto(f"{page.url.partition('#')[0]}#{place}")
            assert (place, overflow(page), cut(page)) == (place, 0, [])


def test_a_table_that_scrolls_says_so_and_keeps_the_names_of_its_rows(tmp_path: Path) -> None:
    with opened_page(opened(tmp_path, Shown([problem(0)]), [results_section(full())])) as page:
        assert page.locator(".scroll.wider").count() == 0
        page.set_viewport_size(PHONE)
        wide = page.locator(".scroll.wider", has_text="mixed")
        expect(wide).to_have_count(1)
        assert "scroll sideways" in wide.evaluate("one => getComputedStyle(one, '::after').content")
        wide.evaluate("one => { one.scrollLeft = 200; }")
        name = wide.locator("tbody th").first.bounding_box()
        assert name is not None
        assert name["x"] >= 0


def test_the_headline_says_the_numbers_of_the_table(tmp_path: Path) -> None:
    with opened_page(opened(tmp_path, Shown([problem(0)]), [results_section(full())])) as page:
        best = page.locator("#selection tr.fixed .value").inner_text()
        random = page.locator('#selection [data-name="random"] .value').inner_text()
        apart = page.locator("#differences tbody tr").first.locator("td").first.inner_text()
        assert f"{float(apart):+} points" in page.locator("#headline").inner_text().replace("\N{MINUS SIGN}", "-")
        lead = page.locator(".lead").first.inner_text()
        assert f"solves {best}% of 1,234 problems" in lead
        assert f"a random candidate solves {random}%" in lead
        assert page.locator(".tiles dd").first.inner_text() == f"{best}%"
        drawn = page.locator("#selection tr.fixed circle").get_attribute("cx")
        assert drawn is not None
        assert float(drawn.rstrip("%")) == pytest.approx(float(best), abs=0.06)


@pytest.mark.parametrize(
    ("interval", "verdict", "judged"),
    [((0.2, 0.3), "Yes: +25.0 points", "good"), ((-0.1, 0.6), "Not shown: +25.0 points", "open"),
     ((-0.3, -0.2), "No: +25.0 points", "bad")],
)  # fmt: skip
def test_the_headline_follows_the_interval(interval: tuple[float, float], verdict: str, judged: str) -> None:
    found = results()
    found["differences"]["prm_min - random"] = {"accuracy": 0.25, "ci": interval}
    headline = headline_of(found)
    assert headline is not None
    assert (headline.verdict, headline.judged) == (verdict, judged)


def test_a_run_without_a_reward_model_has_a_headline_too(tmp_path: Path) -> None:
    rows = {name: row for name, row in results()["selection"].items() if name in ("random", "majority", "oracle")}
    found = {name: value for name, value in results().items() if name not in ("differences", "steps", "labels")}
    found |= {"selection": rows, "curves": {}, "best_of_n": {}}
    with opened_page(opened(tmp_path, Shown([problem(0)]), [results_section(found)])) as page:
        best = max(rows[name]["accuracy"] for name in ("random", "majority"))
        assert page.locator("#headline").inner_text().startswith(f"{100 * best:.1f}% by ")
        assert page.locator("#curve, #differences").count() == 0


def test_charts_name_their_axes_and_lines(tmp_path: Path) -> None:
    with opened_page(opened(tmp_path, Shown([problem(0)]), [results_section(full())])) as page:
        said = {name: page.locator(f"#{name}").inner_text() for name in ("curve", "loss", "calibration")}
        for line in (
            "best of N by step rewards: min",
            "majority vote",
            "oracle",
            "accuracy, %",
            "candidates per problem",
        ):
            assert line in said["curve"]
        for line in ("optimizer step", "loss of training batches", "loss on held-out problems"):
            assert line in said["loss"]
        assert "held-out steps of training" in page.locator("#held-out-calibration").inner_text()
        assert "perfect calibration" in said["calibration"]
        assert "AUROC of steps\t0.912" in page.locator("#view-results").inner_text()
        where = page.locator("#calibration .reward circle").evaluate_all(
            "all => all.map(one => [one.getAttribute('cx'), one.getAttribute('cy')])"
        )
        assert where[-2:] == [["20.0%", "90.0%"], ["80.0%", "10.0%"]]


def test_one_method_has_one_name_everywhere(tmp_path: Path) -> None:
    with opened_page(opened(tmp_path, Shown([problem(0), problem(1)]), [results_section(full())])) as page:
        name = "best of N by step rewards: min"
        assert name in page.locator("#selection").inner_text()
        assert f"{name} \N{MINUS SIGN} random candidate" in page.locator("#differences").inner_text()
        page.goto(page.url + "#problem-0")
        page.locator("#more summary").click()
        assert page.locator("#method option", has_text=name).count() == 1
        assert name in page.locator(".methods").inner_text()
        assert name in page.locator(".chips").first.inner_text()
        assert "prm" not in page.locator("body").inner_text().replace("vlprm", "")


def test_the_first_problem_is_open_and_trees_have_a_list_of_their_own(tmp_path: Path) -> None:
    with opened_page(opened(tmp_path, Shown([problem(0), problem(1), tree()]), [results_section(full())])) as page:
        page.locator("nav a", has_text="Problems").click()
        expect(page.locator("#problem .question")).to_have_text("What is shown in picture 0?")
        expect(page.locator("#list button")).to_have_count(2)
        page.locator("nav a", has_text="Search trees").click()
        expect(page.locator("#count")).to_have_text("1 of 1 search trees")
        expect(page.locator("#problem .question")).to_have_text("Which tree?")
        page.goto(page.url.partition("#")[0] + "#problem-1")
        expect(page.locator("#count")).to_have_text("2 of 2 problems")
        expect(page.locator("#list [aria-current]")).to_contain_text("picture 1")


def test_filters_with_one_value_are_hidden(tmp_path: Path) -> None:
    with opened_page(opened(tmp_path, Shown([problem(0), problem(2), tree()]))) as page:
        page.locator("#more summary").click()
        for name, is_shown in {"benchmark": False, "type": False, "kind": True, "method": True}.items():
            assert page.locator(f"#{name}").is_visible() is is_shown, name
        page.goto(page.url.partition("#")[0] + "#trees")
        assert not page.locator("#more").is_visible()
    with opened_page(opened(tmp_path, Shown([problem(0), problem(1)]))) as page:
        assert page.locator("#benchmark").is_visible()


def test_on_a_phone_a_problem_has_a_way_back(tmp_path: Path) -> None:
    with opened_page(opened(tmp_path, Shown([problem(at) for at in range(30)]))) as page:
        page.set_viewport_size(PHONE)
        page.reload()
        assert not page.locator("#problem").is_visible()
        assert not page.locator(".keys").is_visible()
        page.locator("#list button").nth(20).click()
        expect(page.locator("#problem .question")).to_have_text("What is shown in picture 20?")
        assert not page.locator("#list").is_visible()
        assert page.evaluate("scrollY") == 0
        page.locator(".walk").get_by_text("Next").click()
        page.get_by_text("All problems").click()
        expect(page.locator("#list [aria-current]")).to_be_in_viewport()
        expect(page.locator("#list [aria-current]")).to_contain_text("picture 21")


def two_images() -> ProblemView:
    zoom = StepView("[zoom] {}", "zoom", 0.4, region=Region(450, 0, 900, 150, image=1))
    return ProblemView("2", "two", "", "Which?", "1", 2, (CandidateView((zoom,), "1", True),))


def test_a_zoom_is_drawn_on_the_image_that_it_is_of(tmp_path: Path) -> None:
    with opened_page(opened(tmp_path, Shown([two_images()], (SMALL, WIDE)))) as page:
        assert page.locator(".picture").nth(0).locator("rect").count() == 0
        page.locator(".step").focus()
        box = page.locator(".picture").nth(1).locator("rect.lit").bounding_box()
        image = page.locator(".picture img").nth(1).bounding_box()
        assert box is not None
        assert image is not None
        assert box["x"] - image["x"] == pytest.approx(image["width"] / 2, abs=4)
        assert box["height"] == pytest.approx(image["height"] / 2, abs=4)


def test_images_are_sharp_whole_and_on_white(tmp_path: Path) -> None:
    clear = io.BytesIO()
    Image.new("RGBA", (60, 90), (0, 0, 0, 0)).save(clear, "PNG")
    with opened_page(opened(tmp_path, Shown([problem(0), problem(1)], (clear.getvalue(),)))) as page:
        image = page.locator(".picture img")
        looks = "one => { const s = getComputedStyle(one); return [s.imageRendering, s.backgroundColor, s.objectFit]; }"
        assert image.evaluate(looks)[0] == "pixelated"
        assert image.evaluate("one => one.getBoundingClientRect().width / one.naturalWidth") in (2, 3, 4)
        assert page.locator(".picture").evaluate(looks)[1] == "rgb(255, 255, 255)"
        assert page.locator("#list img").first.evaluate(looks)[1:] == ["rgb(255, 255, 255)", "contain"]


def test_the_legend_names_colours_marks_and_lines(tmp_path: Path) -> None:
    with opened_page(opened(tmp_path, Shown([problem(0), tree()]))) as page:
        legend = page.locator(".legend").inner_text()
        for said in ("reward of a step", "ground truth", "reward 0.5", "zoom step"):
            assert said in legend
        page.goto(page.url.partition("#")[0] + "#problem-1")
        expect(page.locator(".legend")).to_contain_text("judge's verdict")


def test_without_a_gold_answer_nothing_is_called_right_or_wrong(tmp_path: Path) -> None:
    asked = Problem("solve", "solve", "How many?", (SMALL,), None, "integer")
    scored = ScoredSolution(Solution("solve", (Step("answer", "[answer] 3"),), "3", "answer", 5))
    found = SearchResult("solve", "best_of_n", (scored, scored), [1.0, 0.0], Cost())
    with opened_page(opened(tmp_path, OneProblem(asked, found))) as page:
        said = page.locator("body").inner_text()
        assert "2 candidates" in said
        assert "best of N" in said
        assert not {"right", "wrong", "✓", "✗"} & set(said.replace("which candidates are right", "").split())
        assert not page.locator("#list").is_visible()
        assert page.locator("#problem .question").inner_text() == "How many?"


def test_formulas_and_marks_of_images_are_shown_and_what_cannot_be_read_stays(tmp_path: Path) -> None:
    cases = [json.loads(line) for line in TEXTS.read_text().splitlines()]
    deep = ["$" + "{" * 900 + "}" * 900 + "$", "$" + r"\sqrt" * 300 + "2$"]
    cases += [{"text": text, "shown": text} for text in deep]
    with opened_page(opened(tmp_path, Shown([problem(0)]))) as page:
        shown = page.evaluate(
            """texts => texts.map((text) => {
                 const made = element("span", {}, ...textNodes(text));
                 made.querySelectorAll("math").forEach((one) => one.removeAttribute("displaystyle"));
                 return made.innerHTML;
               })""",
            [case["text"] for case in cases],
        )
        assert shown == [case["shown"] for case in cases]
        # A browser that draws MathML puts the numerator above the denominator.
        page.evaluate(r"text => byId('problem').replaceChildren(...textNodes(text))", r"$\frac{1}{2}$")
        top, bottom = (page.locator("mn").nth(i).bounding_box() for i in (0, 1))
        assert top is not None
        assert bottom is not None
        assert top["y"] + top["height"] <= bottom["y"] + 1


def test_numbers_and_labels_are_for_readers(tmp_path: Path) -> None:
    with opened_page(
        opened(tmp_path, Shown([problem(0)]), [results_section(full()), synthesis_section(SYNTHESIS)])
    ) as page:
        said = page.locator("#view-results").inner_text()
        for text in ("110,292", "2,700", "a zoom call is not valid JSON", "count grid: both", "F1 of wrong steps"):
            assert text in said
        for raw in ("auroc", "f1_", "macro_f1", "unparsed", "bad_json", "count_grid", "110292"):
            assert raw not in said
