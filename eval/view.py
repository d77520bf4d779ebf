"""Show a run folder of any size in the browser: a local page that loads each problem when it is opened.

    python -m eval.view --run runs/demo

Shows the available results (`results.json`, `synthesis.json`), the candidates with their rewards, and the search trees.
`eval.report` writes the same page as one file (`report.html`), with the first thousand problems.
"""

from __future__ import annotations

import logging
from collections.abc import Container
from pathlib import Path

from markupsafe import Markup

from eval.runs.problem_sets import tasks_of
from eval.runs.results import evaluation_of
from eval.runs.views import RunViews
from eval.tables.config import ViewConfig
from vlprm.errors import UserError
from vlprm.runs.config import run
from vlprm.runs.folder import json_object
from vlprm.tasks import Tasks
from vlprm.viewer.page import results_section, synthesis_section
from vlprm.viewer.serve import PageServer
from vlprm.viewer.trees import LabelledTrees
from vlprm.viewer.views import Joined, Problems

log = logging.getLogger(__name__)


def main(config: ViewConfig) -> None:
    """Serve the page until Ctrl-C."""
    problems = run_problems(config.run, tasks_of(config.tasks), config.tasks)
    log.info("reading %d problems of %s", len(problems), config.run)
    with PageServer(config.port, config.run.name, run_sections(config.run), problems) as server:
        log.info("open %s in a browser; stop with Ctrl-C", server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            log.info("stopped")


def run_sections(folder: Path) -> list[Markup]:
    """Sections for the results files that the run folder has."""
    parts = (("results.json", results_section), ("synthesis.json", synthesis_section))
    return [section(found) for name, section in parts if (found := json_object(folder / name))]


def run_problems(folder: Path, tasks: Tasks, named: Container[str] = ()) -> Problems:
    """The problems of the eval.run run in this folder or its subfolder `eval`, then the search trees of `labels`.
    `named`: paths of modules that the user gave. UserError if there is neither."""
    evaluation, dataset = evaluation_of(folder), folder / "labels" / "dataset.parquet"
    sources: list[Problems] = [RunViews(evaluation, tasks, named)] if evaluation else []
    if dataset.exists():
        sources.append(LabelledTrees(dataset))
    if not sources:
        raise UserError(
            f"{folder} has neither records nor labels; pass a run folder of eval.run, or the folder of all stages"
        )
    return sources[0] if len(sources) == 1 else Joined(*sources)


if __name__ == "__main__":
    run(main, ViewConfig)
