"""Config of `data_synth.report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jsonargparse.typing import NonNegativeFloat

from vlprm.tasks import TASKS


@dataclass(frozen=True)
class ReportConfig:
    """Report the labels of a data synthesis run and their cost.

    Args:
        run: folder that contains the stages' run folders: trees, judgements and labels.
        tasks: task names or module paths that give the ground truth of the labels.
        price_per_million_tokens: price of a million sampled tokens, to show a price per label; 0 shows none.
        license: licence of the images and questions, for the data card; an identifier of the Hub, such as cc-by-4.0.
    """

    run: Path
    tasks: tuple[str, ...] = tuple(TASKS)
    price_per_million_tokens: NonNegativeFloat = 0.0
    license: str = "unknown"
