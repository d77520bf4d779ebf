"""A run folder in the browser, however large: a page on this machine alone, which asks for its problems as they are
opened.

    python -m eval.view --run runs/demo

Shows the results that are there (`results.json`, `synthesis.json`), the candidates with their rewards, and the search
trees. The same page with the first thousand problems inside, for mailing and keeping, is the `report.html` that
`eval.report` writes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from jsonargparse.typing import NonNegativeInt
from markupsafe import Markup

from eval.pool import Pool, PoolRun, Scored
from eval.run_views import RECORDS, RunViews
from vlprm.config import run
from vlprm.profile import load_profile
from vlprm.records import json_object
from vlprm.schema import Aggregation
from vlprm.scoring import AGGREGATIONS
from vlprm.search.select import likeliest, selectors
from vlprm.tasks import TASKS, Tasks, load_tasks
from vlprm.viewer.page import results_section, synthesis_section
from vlprm.viewer.serve import PageServer
from vlprm.viewer.trees import LabelledTrees
from vlprm.viewer.views import CandidateView, Joined, Problems, ProblemView, StepView

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ViewConfig:
    """Look at a run.

    Args:
        run: run folder of eval.run, or one whose stages are its sub-folders.
        tasks: task names or module paths, as they were given to the stages before.
        port: of the page on this machine; 0: one that is free.
    """

    run: Path
    tasks: tuple[str, ...] = tuple(TASKS)
    port: NonNegativeInt = 8123


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
    """What a run of `eval.run` found; or the scored candidates of the demo's stages, and after them their search trees.
    ValueError where there is none of it."""
    if (folder / RECORDS).is_file():
        return RunViews(folder)
    dataset = folder / "labels" / "dataset.parquet"
    sources: list[Problems] = []
    if (folder / "rewards").is_dir():
        sources.append(PoolViews(PoolRun(folder, tasks), load_profile(folder / "prm").aggregation))
    if dataset.exists():
        sources.append(LabelledTrees(dataset))
    if not sources:
        raise ValueError(f"{folder} has neither rewards nor labels; give the folder that holds those of all stages")
    return Joined(*sources)


class PoolViews(Problems):
    """Scored pools as problems of a page; `aggregation` is the one fixed for weighted votes."""

    def __init__(self, pools: PoolRun, aggregation: Aggregation) -> None:
        self._pools, self._aggregation = pools, aggregation

    def __len__(self) -> int:
        return len(self._pools)

    def view(self, at: int) -> ProblemView:
        return pool_view(self._pools.pool(at), self._aggregation)

    def images(self, at: int) -> tuple[bytes, ...]:
        return self._pools.images(at)


def pool_view(pool: Pool, aggregation: Aggregation) -> ProblemView:
    return ProblemView(
        id=pool.problem.id,
        benchmark=pool.problem.task,
        question_type=pool.question_type.partition("/")[2],
        question=pool.problem.question,
        answer=pool.problem.answer,
        candidates=tuple(map(_candidate_view, pool.candidates)),
        chosen=_chosen(pool, aggregation),
    )


def _chosen(pool: Pool, aggregation: Aggregation) -> dict[str, int]:
    """The candidate to which each selector gives the largest share, the first of equals. A random choice is none."""
    candidates = [c.candidate for c in pool.candidates]
    choosers = {name: chooser for name, chooser in selectors(aggregation).items() if name != "random"}
    if any(c.surprise is not None for c in candidates):
        choosers["likeliest"] = likeliest
    shares = {name: chooser(candidates) for name, chooser in choosers.items()}
    return {name: share.index(max(share)) for name, share in shares.items()}


def _candidate_view(scored: Scored) -> CandidateView:
    rewards = scored.candidate.rewards
    steps = [
        StepView(
            text=step.text,
            kind=step.kind,
            reward=score and score.correct,
            correct=truth and truth.correct,
            error_kind=truth and truth.error_kind,
            region=step.region,
        )
        for step, score, truth in zip(scored.solution.steps, scored.scores, scored.truth, strict=True)
    ]
    by_rule = {name: rule(rewards) for name, rule in AGGREGATIONS.items()} if rewards else {}
    return CandidateView(tuple(steps), scored.solution.answer, scored.right, scored.solution.stop,
                         {**by_rule, "whole": scored.whole})  # fmt: skip


if __name__ == "__main__":
    run(main, ViewConfig)
