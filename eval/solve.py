"""Solve one question about images: a solution with step rewards, and a page with all candidates.

    python -m eval.solve --image grid.png --question "How many red cells are there?" --reward_model runs/demo/prm

Prints the chosen solution, one step per line with its reward, and writes `report.html` into the run folder.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from eval.runs.config import SolveConfig
from eval.runs.models import open_models, refuse_missing_models
from eval.runs.views import candidate_view
from vlprm.answers import is_correct
from vlprm.data.problem_file import check_choices, gold_answer
from vlprm.errors import UserError
from vlprm.images import check_aspect, content_hash, open_image
from vlprm.prompts import with_options
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, write_atomically
from vlprm.schema import Problem, Solution, StepScore
from vlprm.search import ScoredSolution, SearchResult, solve
from vlprm.viewer.page import render_page
from vlprm.viewer.views import CandidateView, Problems, ProblemView

log = logging.getLogger(__name__)


def main(config: SolveConfig) -> None:
    """Solve the problem, print the chosen solution, and write the page."""
    problem = problem_of(config)
    refuse_missing_models([config.method], config.reward_model, config.critic, config.scorer, config.search.aggregation)
    folder = config.run or Path("runs/solve") / content_hash(dump(config).encode() + b"".join(problem.images))
    open_run(folder, dump(config), config.search.seed)
    found = asyncio.run(searched(problem, config))
    print(as_text(found))
    if problem.answer is not None and found.chosen is not None:
        print({True: "right", False: "wrong", None: "no result"}[is_right(problem, found.chosen.solution)])
    page = render_page(config.question, [], OneProblem(problem, found))
    write_atomically(folder / "report.html", page)
    log.info("wrote %s", folder / "report.html")


def problem_of(config: SolveConfig) -> Problem:
    """The problem to solve. UserError if the question is empty, if an image is missing, unreadable or too narrow, if
    there is one choice alone, or if the answer is none of the choices or does not have its type."""
    if not config.question.strip():
        raise UserError("--question is empty; write the question about the images")
    check_choices(config.choices, "--choices")
    answer = config.answer
    gold = None if answer is None else gold_answer(answer, config.answer_type, config.choices, "--answer")
    images = []
    for path in config.image:
        if not path.is_file():
            raise UserError(f"there is no image {path}; give the path of a PNG or JPEG file")
        images.append(path.read_bytes())
        check_aspect(open_image(images[-1], str(path)).size, str(path))
    meta = {"choices": list(config.choices)} if config.choices else {}
    question = with_options(config.question, config.choices)
    return Problem("solve", "solve", question, tuple(images), gold, config.answer_type, meta)


async def searched(problem: Problem, config: SolveConfig) -> SearchResult:
    """Run the search method on the problem."""
    async with open_models(config.policy, config.reward_model, config.scorer, config.critic) as models:
        return await solve(config.method, problem, models.policy, models.scorer, config.search, models.critic)


def as_text(found: SearchResult) -> str:
    """The chosen solution, one step per line with its reward, and the cost."""
    chosen, cost = found.chosen, found.cost
    if chosen is None:
        return "no candidate was found"
    steps = zip(chosen.solution.steps, _padded(chosen), strict=True)
    lines = [f"{'     ' if score is None else f'{score.correct:.3f}'}  {step.text.strip()}" for step, score in steps]
    answer = chosen.solution.answer or f"none ({chosen.solution.stop})"
    return "\n".join([
        *lines,
        f"answer: {answer}; chosen from {len(found.pool)} candidates by {found.method}",
        f"tokens: the policy sampled {cost.policy_sampled} and read {cost.policy_read}, the reward model read"
        f" {cost.scorer_read}, the critic sampled {cost.critic_sampled} and read {cost.critic_read};"
        f" {cost.seconds:.1f} seconds",
    ])  # fmt: skip


def _padded(scored: ScoredSolution) -> Sequence[StepScore | None]:
    return scored.scores or [None] * len(scored.solution.steps)


class OneProblem(Problems):
    """The search result as the single problem of a page."""

    def __init__(self, problem: Problem, found: SearchResult) -> None:
        self.problem, self.found = problem, found

    def __len__(self) -> int:
        return 1

    def images(self, at: int) -> tuple[bytes, ...]:
        """The problem's images, as encoded files."""
        return self.problem.images

    def view(self, at: int) -> ProblemView:
        """The problem with its candidates and the choice."""
        best = {self.found.method: self.found.shares.index(max(self.found.shares))} if self.found.pool else {}
        candidates = tuple(scored_view(scored, is_right(self.problem, scored.solution)) for scored in self.found.pool)
        return ProblemView(
            self.problem.id, self.problem.task, "", self.problem.question, self.problem.answer,
            len(self.problem.images), candidates, best,
        )  # fmt: skip


def scored_view(scored: ScoredSolution, right: bool | None = None) -> CandidateView:
    """A candidate with its step rewards, for a page."""
    rewards = [None if score is None else score.correct for score in scored.scores]
    return candidate_view(scored.solution, rewards, right)


def is_right(problem: Problem, solution: Solution) -> bool | None:
    """Whether the answer is right; None for no result or an unknown gold answer."""
    return None if problem.answer is None else is_correct(solution.answer, problem.answer, problem.answer_type)


if __name__ == "__main__":
    run(main, SolveConfig)
