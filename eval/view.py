"""A run folder in the browser, however large: a page on this machine alone, which asks for its problems as they are
opened.

    python -m eval.view --run runs/demo

Shows the results that are there (`results.json`, `synthesis.json`), the candidates with their rewards, and the search
trees. The same page with the first thousand problems inside, for mailing and keeping, is the `report.html` that
`eval.report` writes.
"""

from __future__ import annotations

import logging
from pathlib import Path

from markupsafe import Markup

from eval.runs.results import evaluation_of
from eval.runs.views import RunViews
from eval.tables.config import ViewConfig
from vlprm.errors import UserError
from vlprm.runs.config import run
from vlprm.runs.folder import json_object
from vlprm.tasks import Tasks, load_tasks
from vlprm.viewer.page import results_section, synthesis_section
from vlprm.viewer.serve import PageServer
from vlprm.viewer.trees import LabelledTrees
from vlprm.viewer.views import Joined, Problems

log = logging.getLogger(__name__)


def main(config: ViewConfig) -> None:
    problems = run_problems(config.run, load_tasks(config.tasks))
    log.info("reading %d problems of %s", len(problems), config.run)
    with PageServer(config.port, config.run.name, run_sections(config.run), problems) as server:
        log.info("open %s in a browser; Ctrl-C ends it", server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            log.info("ended")


def run_sections(folder: Path) -> list[Markup]:
    """What the reports of a run measured, as far as they were made."""
    parts = (("results.json", results_section), ("synthesis.json", synthesis_section))
    return [section(found) for name, section in parts if (found := json_object(folder / name))]


def run_problems(folder: Path, tasks: Tasks) -> Problems:
    """What the run of `eval.run` in this folder or in its folder `eval` found, and after it the search trees of a
    folder of stages. UserError where there is neither."""
    evaluation, dataset = evaluation_of(folder), folder / "labels" / "dataset.parquet"
    sources: list[Problems] = [RunViews(evaluation, tasks)] if evaluation else []
    if dataset.exists():
        sources.append(LabelledTrees(dataset))
    if not sources:
        raise UserError(f"{folder} has neither records nor labels; give a run folder of eval.run or of all stages")
    return sources[0] if len(sources) == 1 else Joined(*sources)


if __name__ == "__main__":
    run(main, ViewConfig)
