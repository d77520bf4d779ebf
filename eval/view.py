"""Show a run folder of any size in the browser: a local page that loads each problem when it is opened.

    python -m eval.view --run runs/demo

Shows the available results (`results.json`, `synthesis.json`), the candidates with their rewards, and the search trees.
`eval.report` writes the same page as one file (`report.html`), with the first thousand problems.
"""

from __future__ import annotations

import logging
from collections.abc import Container
from pathlib import Path

import yaml
from markupsafe import Markup

from eval.runs.curves import training_of
from eval.runs.problem_sets import tasks_of
from eval.runs.results import evaluation_of
from eval.runs.views import RunViews
from eval.tables.config import ViewConfig
from vlprm.errors import UserError
from vlprm.runs.config import run
from vlprm.runs.folder import CONFIG, json_object
from vlprm.tasks import Tasks
from vlprm.viewer.sections import results_section, synthesis_section
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
    """Sections for the results files that the run folder has, with the course of the reward model's training."""
    sections = []
    if results := json_object(folder / "results.json"):
        sections.append(results_section(results | {"training": training_of(training_folder(folder))}))
    if synthesis := json_object(folder / "synthesis.json"):
        sections.append(synthesis_section(synthesis))
    return sections


def training_folder(folder: Path) -> Path:
    """The folder of the reward model's training: `prm` of the same run, or the checkpoint that eval.run was given."""
    evaluation = evaluation_of(folder)
    if (folder / "prm").is_dir() or evaluation is None:
        return folder / "prm"
    reward_model = yaml.safe_load((evaluation / CONFIG).read_text()).get("reward_model")
    return Path(reward_model["checkpoint"]) if reward_model else folder / "prm"


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
