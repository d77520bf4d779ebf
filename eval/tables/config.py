"""What the commands that show runs are asked for: `eval.table`, `eval.report`, `eval.view`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeInt

from vlprm.tasks import TASKS

Layout = Literal["methods", "aggregations", "curve"]


Format = Literal["text", "markdown", "latex", "csv", "model-index", "eval-results"]


@dataclass(frozen=True)
class TableConfig:
    """Print a table.

    Args:
        runs: run folders of eval.run.
        layout: methods, aggregations (every rule of best-of-N), or curve (best-of-n by n).
        format: text, markdown, latex or csv; model-index or eval-results, for the Hub.
        pool: run folder of eval.run with a larger pool, for best of N at equal tokens.
        published: a file of published rows to stand below, such as eval/published.yaml.
    """

    runs: tuple[Path, ...]
    layout: Layout = "methods"
    format: Format = "text"
    pool: Path | None = None
    published: Path | None = None


@dataclass(frozen=True)
class ReportConfig:
    """Measure and show a run.

    Args:
        run: run folder of eval.run, or one whose stages are its sub-folders; the report is written into it.
        tasks: task names or module paths; families from outside the package are imported where they are named here.
    """

    run: Path
    tasks: tuple[str, ...] = tuple(TASKS)


@dataclass(frozen=True)
class ViewConfig:
    """Look at a run.

    Args:
        run: run folder of eval.run, or one whose stages are its sub-folders.
        tasks: task names or module paths; families from outside the package are imported where they are named here.
        port: of the page on this machine; 0: one that is free.
    """

    run: Path
    tasks: tuple[str, ...] = tuple(TASKS)
    port: NonNegativeInt = 8123
