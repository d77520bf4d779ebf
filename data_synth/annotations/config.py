"""Config of `data_synth.annotate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt

Order = Literal["uncertain", "disagreement"]


@dataclass(frozen=True)
class AnnotateConfig:
    """Confirm or override step labels in the browser, beside the image.

    Args:
        trees: run folder of data_synth.trees.
        run: run folder to write; its name is the name of the person, as a source of labels.
        labels: run folder of data_synth.label, whose targets and votes are shown; without it, the share of right
            rollouts from or through a step is its target, and all trees are asked about.
        order: which steps are asked first: targets nearest to one half (uncertain), or sources that disagree most.
        steps: number of steps to ask about.
        port: local port of the page; 0 for a free one.
        specificity: share of the correct steps that the person calls correct, if it is known; without it,
            data_synth.label estimates both rates.
        sensitivity: share of the wrong steps that the person calls wrong, if it is known.
    """

    trees: Path
    run: Path
    labels: Path | None = None
    order: Order = "uncertain"
    steps: PositiveInt = 200
    port: NonNegativeInt = 8124
    specificity: ClosedUnitInterval | None = None
    sensitivity: ClosedUnitInterval | None = None
