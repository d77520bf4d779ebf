"""Configs of the commands that show runs: `eval.table`, `eval.report`, `eval.view`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt

from vlprm.tasks import TASKS

Layout = Literal["methods", "aggregations", "curve"]


Format = Literal["text", "markdown", "latex", "csv", "model-index", "eval-results"]


@dataclass(frozen=True)
class TableConfig:
    """Print a table of runs.

    Args:
        runs: run folders of eval.run.
        layout: rows: methods, aggregations (best-of-N by each aggregation), or curve (best of 1, 2, 4, ...).
        format: output format: text, markdown, latex, csv; or metadata for the Hub: model-index, eval-results.
        pool: run folder of eval.run with more candidates per problem, for best-of-N at equal cost.
        published: YAML file of published rows to append, such as eval/published.yaml.
    """

    runs: tuple[Path, ...]
    layout: Layout = "methods"
    format: Format = "text"
    pool: Path | None = None
    published: Path | None = None


@dataclass(frozen=True)
class CompareConfig:
    """Compare reward models with the vote on one stored pool.

    Args:
        runs: run folders of eval.run with a reward model, all over the same candidates.
        run: folder to write.
        n: candidates to choose from, the first of each problem; those beyond serve comparisons at equal cost; 0 for
            all.
        threshold: share of equal answers above which the vote decides, in the row that asks the reward model only
            below it.
        checksum: checksum of the pool; another pool is refused. Empty for any.
    """

    runs: tuple[Path, ...]
    run: Path
    n: NonNegativeInt = 0
    threshold: ClosedUnitInterval = 0.5
    checksum: str = ""


@dataclass(frozen=True)
class ReportConfig:
    """Measure a run and write its page.

    Args:
        run: run folder of eval.run, or the folder of all stages; the report is written into it.
        tasks: task names or module paths; name families and benchmarks from outside the package here.
    """

    run: Path
    tasks: tuple[str, ...] = tuple(TASKS)


@dataclass(frozen=True)
class ViewConfig:
    """Show a run in the browser.

    Args:
        run: run folder of eval.run, or the folder of all stages.
        tasks: task names or module paths; name families and benchmarks from outside the package here.
        port: local port of the page; 0 for a free one.
    """

    run: Path
    tasks: tuple[str, ...] = tuple(TASKS)
    port: NonNegativeInt = 8123
