"""The page in headless Chromium: filter, open, navigate by keyboard; text of models stays text."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser import opened_page
from tests.shown import EVIL, SHOWN_EVIL, Shown, hostile, problem, tree
from tests.viewer.test_page import results
from vlprm.viewer.page import render_page
from vlprm.viewer.sections import results_section
from vlprm.viewer.serve import PageServer
from vlprm.viewer.views import ProblemView

PROBLEMS = [*(problem(at) for at in range(120)), tree()]


@contextmanager
def shown(way: str, views: list[ProblemView], folder: Path) -> Iterator[Page]:
    """A page that holds its problems, or one that asks a server for them."""
    sections = [results_section(results())]
    if way == "in the page":
        (folder / "report.html").write_text(render_page("a run", sections, Shown(views)))
        with opened_page((folder / "report.html").as_uri()) as page:
            yield page
        return
    with PageServer(0, "a run", sections, Shown(views)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with opened_page(server.url) as page:
            yield page
        server.shutdown()


@pytest.mark.parametrize("way", ["in the page", "served"])
def test_problems_are_filtered_opened_and_walked_through_by_keyboard(way: str, tmp_path: Path) -> None:
    with shown(way, PROBLEMS, tmp_path) as page:
        expect(page.locator("#selection")).to_be_visible()
        page.keyboard.press("/")
        expect(page.locator("#words")).to_be_focused()
        expect(page.locator("#count")).to_have_text("120 of 120 problems")
        page.locator("#more summary").click()
        page.locator("#method").select_option("majority")
        page.locator("#outcome").select_option("true")
        page.locator("#method2").select_option("prm_min")
        page.locator("#outcome2").select_option("false")
        expect(page.locator("#count")).to_have_text("40 of 120 problems")
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.locator("#problem .question")).to_have_text("What is shown in picture 4?")
        expect(page.locator("#problem")).to_be_focused()
        expect(page.locator("#problem img")).to_have_js_property("naturalWidth", 512)
        page.keyboard.press("j")
        expect(page.locator("#problem .question")).to_have_text("What is shown in picture 8?")
        page.keyboard.press("Escape")
        expect(page.locator("#list [aria-current]")).to_be_focused()


def test_each_filter_keeps_what_it_says(tmp_path: Path) -> None:
    with shown("in the page", PROBLEMS, tmp_path) as page:
        page.goto(page.url + "#problems")
        kept = {
            "#benchmark": ("chart", 60),
            "#method2": ("majority", 120),
            "#outcome": ("false", 100),
            "#kind": ("reasoning", 120),
        }
        page.locator("#more summary").click()
        for name, (value, count) in kept.items():
            page.locator(name).select_option(value)
            expect(page.locator("#count")).to_have_text(f"{count} of 120 problems")
            if count < 120:
                page.get_by_text("clear filters").click()
        page.locator("#differ").check()
        expect(page.locator("#count")).to_have_text("60 of 120 problems")
        page.locator("#words").fill("picture 22")
        expect(page.locator("#list button")).to_have_count(1)


def test_a_page_of_rows_follows_the_problem_that_is_open(tmp_path: Path) -> None:
    with shown("in the page", PROBLEMS, tmp_path) as page:
        page.goto(page.url + "#problem-49")
        expect(page.locator("#page")).to_have_text("page 1 of 3")
        page.keyboard.press("j")
        expect(page.locator("#page")).to_have_text("page 2 of 3")
        expect(page.locator("#list [aria-current]")).to_contain_text("picture 50")


def test_a_problem_shows_its_steps_rewards_labels_and_zoom(tmp_path: Path) -> None:
    with shown("in the page", [problem(2)], tmp_path) as page:
        page.goto(page.url + "#problem-0")
        first = page.locator(".candidate").first
        assert first.locator(".plotline circle").count() == 2
        assert first.locator(".step .reward").all_inner_texts() == ["0.90", "0.80"]
        assert "majority" in first.locator(".chips").inner_text()
        assert "reasoning error" in page.locator(".candidate").nth(1).inner_text()
        assert "none (length)" in page.locator(".candidate").nth(2).inner_text()
        colours = page.locator(".step").evaluate_all("steps => steps.map(s => getComputedStyle(s).backgroundColor)")
        assert len(set(colours)) == 4
        page.locator(".step[tabindex]").focus()
        box, image = page.locator(".picture rect.lit").bounding_box(), page.locator(".picture img").bounding_box()
        assert box is not None
        assert image is not None
        assert box["x"] - image["x"] == pytest.approx(image["width"] / 2, abs=4)
        assert box["height"] == pytest.approx(image["height"] / 2, abs=6)


def test_a_tree_opens_and_closes(tmp_path: Path) -> None:
    with shown("in the page", [tree()], tmp_path) as page:
        page.goto(page.url + "#problem-0")
        leaf = page.locator(".tree .leaf").get_by_text("answer 1")
        expect(leaf).to_be_visible()
        page.locator(".tree summary").focus()
        page.keyboard.press("Enter")
        expect(leaf).to_be_hidden()
        page.get_by_text("Open all").click()
        expect(leaf).to_be_visible()


@pytest.mark.parametrize("way", ["in the page", "served"])
def test_hostile_text_is_shown_and_does_nothing(way: str, tmp_path: Path) -> None:
    with shown(way, [hostile(), tree()], tmp_path) as page:
        page.goto(page.url + "#problem-0")
        expect(page.locator("#problem .question")).to_have_text(SHOWN_EVIL)
        assert page.locator(".candidate .text").first.inner_text() == SHOWN_EVIL
        page.get_by_text("critique").click()
        assert page.locator("pre.critique").inner_text() == SHOWN_EVIL
        assert page.locator("#benchmark option").nth(1).get_attribute("value") == SHOWN_EVIL
        assert page.locator("img").count() == 1 + page.locator("#list img").count()
        assert EVIL[:40] in page.locator("#view-results").inner_text() or page.locator("#view-results").is_hidden()
