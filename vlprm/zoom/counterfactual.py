"""Controls: a zoom whose crop is replaced. If the answer does not depend on what the crop shows, the policy did not use
it (SCCM, arXiv 2510.23482; Visual-CoT's random boxes).

The step's text stays as it is; only the region, and so the crop that is shown, changes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from vlprm.schema import BLANK, Region, Step

DRAWS = 64


def prefix_with(steps: Sequence[Step], zoom: int, region: Region) -> tuple[Step, ...]:
    """The steps up to the zoom at index `zoom`, with another region shown."""
    assert steps[zoom].region is not None, "a zoom that was not executed has no crop to replace"
    return (*steps[:zoom], replace(steps[zoom], region=region))


def blank_like(region: Region) -> Region:
    """A white crop of the same size."""
    return replace(region, image=BLANK)


def elsewhere(region: Region, frame: Region, avoid: Region, rng: random.Random) -> Region:
    """A random region of the same size in the frame: of up to `DRAWS` draws, the one that overlaps `avoid` least."""
    width, height = region.x1 - region.x0, region.y1 - region.y0
    across, down = max(0, int(frame.x1 - frame.x0 - width)), max(0, int(frame.y1 - frame.y0 - height))

    def drawn() -> Region:  # at whole pixels, so that the crop is not widened to more pixels than it replaces
        x, y = frame.x0 + rng.randint(0, across), frame.y0 + rng.randint(0, down)
        return Region(x, y, x + width, y + height, frame.image)

    shown = drawn()
    for _ in range(DRAWS):
        if not shown.overlap(avoid):
            break
        shown = min(shown, drawn(), key=avoid.overlap)
    return shown
