"""What `data_synth.report` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jsonargparse.typing import NonNegativeFloat

from vlprm.tasks import TASKS


@dataclass(frozen=True)
class ReportConfig:
    """Report on a run.

    Args:
        run: folder whose stages are its sub-folders.
        tasks: task names or module paths, whose truth labels are measured against.
        price_per_million_tokens: of sampled tokens, for a cost a label; 0: none is shown.
    """

    run: Path
    tasks: tuple[str, ...] = tuple(TASKS)
    price_per_million_tokens: NonNegativeFloat = 0.0
