"""Controls: a zoom with something else in the place of its crop. If the answer does not change with what a crop shows,
the policy did not look at it (SCCM, arXiv 2510.23482; Visual-CoT's random boxes).

The text of the step stays, and with it what the policy says it asked for; the region changes, and so what is shown.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from vlprm.schema import BLANK, Region, Step

DRAWS = 64


def prefix_with(steps: Sequence[Step], zoom: int, region: Region) -> tuple[Step, ...]:
    """The steps up to the zoom of that number, whose crop shows another region."""
    assert steps[zoom].region is not None, "a zoom that was not executed shows nothing to replace"
    return (*steps[:zoom], replace(steps[zoom], region=region))


def blank_like(region: Region) -> Region:
    """White of the same size."""
    return replace(region, image=BLANK)


def elsewhere(region: Region, frame: Region, avoid: Region, rng: random.Random) -> Region:
    """A region of the same size at random in the frame, of so many draws the one that shows least of `avoid`."""
    width, height = region.x1 - region.x0, region.y1 - region.y0
    across, down = max(0, int(frame.x1 - frame.x0 - width)), max(0, int(frame.y1 - frame.y0 - height))

    def drawn() -> Region:  # at whole pixels, lest it were widened to more of them than it replaces
        x, y = frame.x0 + rng.randint(0, across), frame.y0 + rng.randint(0, down)
        return Region(x, y, x + width, y + height, frame.image)

    shown = drawn()
    for _ in range(DRAWS):
        if not shown.overlap(avoid):
            break
        shown = min(shown, drawn(), key=avoid.overlap)
    return shown
