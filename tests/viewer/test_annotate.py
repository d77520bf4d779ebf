"""The page of labels by a person: who may send a verdict, hostile text, failures, and a narrow window."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Route, ViewportSize, expect

from tests.browser import WINDOW, opened_page
from tests.shown import EVIL, IMAGE, SHOWN_EVIL
from tests.viewer.test_layout import PHONE, cut, overflow
from vlprm.errors import UserError
from vlprm.schema import Region
from vlprm.viewer.annotate import AnnotationServer, Progress, Question, Questions, VoteView
from vlprm.viewer.views import CandidateView, ProblemView, StepView


class Asked(Questions):
    """Two questions about the same solution: its second step and its first."""

    def __init__(self) -> None:
        self.said: dict[int, tuple[str, str]] = {}
        self.full = False

    def __len__(self) -> int:
        return 2

    def question(self, at: int) -> Question:
        zoom = StepView(EVIL, "zoom", 0.25, region=Region(0, 0, 256, 128))
        steps = (zoom, StepView(EVIL, "other", float("nan")), StepView("[reasoning] so", "reasoning", 0.4))
        problem = ProblemView(EVIL, EVIL, EVIL, EVIL, EVIL, 1, (CandidateView(steps, None, None),))
        votes = [[VoteView(EVIL, False, "perception", EVIL), VoteView("two", True)], [], []]
        mine = [self.said.get(step, (None, "")) for step in range(3)]
        return Question(problem, (1, 0)[at], votes, [(1, 2), (0, 0), (0, 0)], *map(list, zip(*mine, strict=True)))  # type: ignore[arg-type]

    def images(self, at: int) -> tuple[bytes, ...]:
        return (IMAGE,)

    def answer(self, at: int, step: int, verdict: str, reason: str) -> None:
        if self.full:
            raise UserError("the disk is full")
        self.said[step] = verdict, reason

    def progress(self, after: int) -> Progress:
        opened = [at for at in range(2) if (1, 0)[at] not in self.said]
        return Progress(2 - len(opened), 0, 2, opened[0] if opened else None)


@contextmanager
def served(questions: Asked) -> Iterator[AnnotationServer]:
    with AnnotationServer(0, "alice", questions) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_only_the_servers_own_page_can_send_a_verdict() -> None:
    questions = Asked()
    verdict = {"at": 0, "step": 1, "verdict": "correct", "reason": ""}
    with served(questions) as server:
        own, json_type = server.url.rstrip("/"), "application/json"

        def sent(body: object, path: str = "/verdict", **headers: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
            told = {"Origin": own, "Content-Type": json_type} | {k.replace("_", "-"): v for k, v in headers.items()}
            connection.request("POST", path, json.dumps(body), told)
            return connection.getresponse().status

        assert sent(verdict, Origin="http://evil.example") == 400
        assert sent(verdict, Content_Type="text/plain") == 400
        assert sent(verdict, Host="evil.example") == 421
        assert sent(verdict, Content_Length="99999999") == 400
        assert sent(verdict, "/question?at=0") == 404
        for wrong in ([], {}, {**verdict, "verdict": "maybe"}, {**verdict, "at": -1}, {**verdict, "step": True}):
            assert sent(wrong) == 400
        assert questions.said == {}
        assert sent(verdict) == 200
    assert questions.said == {1: ("correct", "")}


def test_hostile_text_stays_text_and_nothing_is_cut_off_on_a_phone() -> None:
    questions = Asked()
    with served(questions) as server, opened_page(server.url) as page:
        expect(page.locator("#asked .question")).to_have_text(SHOWN_EVIL)
        assert page.locator("#asked .votes li").first.inner_text().startswith(SHOWN_EVIL)
        assert page.locator("#asked img").count() == 1
        expect(page.locator("#asked .step[aria-current]")).to_have_count(1)
        page.keyboard.press("k")  # the first step, whose region is lit on the image
        box, image = page.locator(".picture rect.lit").bounding_box(), page.locator(".picture img").bounding_box()
        assert box is not None
        assert image is not None
        assert box["width"] == pytest.approx(image["width"] / 2, abs=6)
        page.set_viewport_size(PHONE)
        assert (overflow(page), cut(page)) == (0, [])
        page.keyboard.press("k")
        bar, step = page.locator("#say").bounding_box(), page.locator("#asked .step[aria-current]").bounding_box()
        assert bar is not None
        assert step is not None
        assert bar["y"] + bar["height"] <= PHONE["height"] + 1
        assert step["y"] < bar["y"]


@pytest.mark.parametrize("size", [WINDOW, PHONE], ids=["wide", "phone"])
def test_nothing_moves_when_an_image_arrives(size: ViewportSize) -> None:
    places = """() => [".picture img", ".picture rect", "#asked .steps"].map((one) => {
        const { x, y, width, height } = document.querySelector(one).getBoundingClientRect();
        return [x, y, width, height];
    })"""
    held: list[Route] = []
    with served(Asked()) as server, opened_page(server.url) as page:
        page.set_viewport_size(size)
        expect(page.locator(".picture img")).to_have_js_property("complete", True)  # a reload would end it
        page.route("**/image?*", lambda route: held.append(route))
        page.reload()
        expect(page.locator("#asked .step[aria-current]")).to_have_count(1)
        before = page.evaluate(places)
        (_, _, image, _), (_, _, region, _), _ = before
        assert region == pytest.approx(image / 2)
        assert len(held) == 1
        held[0].continue_()
        expect(page.locator(".picture img")).to_have_js_property("complete", True)
        assert page.evaluate(places) == before


def test_a_verdict_that_was_not_stored_is_not_shown_as_one() -> None:
    questions = Asked()
    questions.full = True

    def refused(url: str) -> None:
        with opened_page(url) as page:
            expect(page.locator("#asked .step[aria-current]")).to_have_count(1)
            page.keyboard.press("1")
            expect(page.locator("#failed")).to_contain_text("Not saved: the disk is full")
            expect(page.locator("#progress")).to_have_text("0 of 2")
            assert page.locator(".mine").count() == 0

    with served(questions) as server:
        with pytest.raises(AssertionError, match="400"):  # the browser logs the refusal
            refused(server.url)
        questions.full = False
        with opened_page(server.url) as page:
            expect(page.locator("#asked .step[aria-current]")).to_have_count(1)
            page.keyboard.press("4")
            expect(page.locator(".mine")).to_have_count(1)
            page.keyboard.press("0")
            expect(page.locator("#progress")).to_have_text("2 of 2, done")
            expect(page.locator(".picture img")).to_have_js_property("complete", True)  # a reload would end it
            page.reload()
            expect(page.locator(".mine").first).to_have_text("you: not sure")
            assert page.locator(".mine").nth(1).inner_text() == "you: wrong: action"
