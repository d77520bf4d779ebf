"""Problems in memory for the tests of the pages."""

from __future__ import annotations

from collections.abc import Sequence

from vlprm.schema import Region
from vlprm.tasks import TASKS
from vlprm.viewer.views import CandidateView, Problems, ProblemView, StepView, TreeStepView

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)><!-- \"'& \x07 \u202eturned \ud800"
SHOWN_EVIL = EVIL.replace("\x07", "⟨U+0007⟩").replace("\u202e", "⟨U+202E⟩").replace("\ud800", "⟨U+D800⟩")
IMAGE = TASKS["fine_print"].problem("test", 0).images[0]  # 512 x 512


class Shown(Problems):
    """Problems, each with the same images."""

    def __init__(self, views: Sequence[ProblemView], images: tuple[bytes, ...] = (IMAGE,)) -> None:
        self._views, self._images = views, images

    def __len__(self) -> int:
        return len(self._views)

    def view(self, at: int) -> ProblemView:
        return self._views[at]

    def images(self, at: int) -> tuple[bytes, ...]:
        return self._images


def hostile() -> ProblemView:
    """A problem whose texts were all written by an attacker."""
    step = StepView(EVIL, EVIL, 0.25, False, EVIL, EVIL, EVIL, Region(0, 0, 256, 128))
    candidates = (
        CandidateView((step, StepView(EVIL, "other", float("nan"))), EVIL, False, EVIL, {EVIL: 0.5}, EVIL),
        CandidateView((), None, None, "length"),
    )
    return ProblemView(EVIL, EVIL, EVIL, EVIL, EVIL, 1, candidates, {EVIL: 0}, (TreeStepView(step, -1, 1, 2),))


def problem(at: int) -> ProblemView:
    """A problem whose vote is right if `at` is even, and whose best of N is right if `at` is a multiple of 3."""
    steps = (StepView("[perception] row 1", "perception", 0.9, True), StepView("[answer] 1", "answer", 0.8))
    right = CandidateView(steps, "1", True)
    wrong = CandidateView((StepView("[answer] 2", "answer", 0.2, False, "reasoning"),), "2", False)
    zoom = CandidateView((StepView("[zoom] {}", "zoom", 0.4, region=Region(256, 0, 512, 256)),), None, None, "length")
    return ProblemView(
        f"item/{at:04d}",
        "chart" if at % 2 else "figure",
        "sum",
        f"What is shown in picture {at}?",
        "1",
        1,
        (right, wrong, zoom),
        {"majority": at % 2, "prm_min": int(at % 3 > 0)},
    )


def tree() -> ProblemView:
    """A search tree with two first steps, and one step after the first of them."""
    nodes = [("[perception] a", -1), ("[answer] 1", 0), ("[perception] b", -1)]
    steps = [TreeStepView(StepView(text, "other", 0.5), parent, 3, 4) for text, parent in nodes]
    return ProblemView("tree/0", "search trees", "sum", "Which tree?", "1", 1, tree=tuple(steps))
