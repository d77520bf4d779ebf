"""The page of a run: the curves of its monitors, and the solutions of its last round step by step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from train.policy.batches import policy_batch
from train.policy.learner import Learner, rows_of
from train.policy.rounds import Rated, Rollouts, read_round
from train.policy.trajectories import path_of
from vlprm.runs.folder import write_atomically
from vlprm.schema import Problem
from vlprm.viewer.page import render_page
from vlprm.viewer.sections import policy_section
from vlprm.viewer.views import CandidateView, Problems, ProblemView, StepView

PAGE = "report.html"
Nats = Mapping[int, float]  # log-probability of each step


class RoundViews(Problems):
    """The solutions of a round, or its critiques after what they are about, with each step's advantage and its
    log-probability when it was sampled and now."""

    def __init__(self, rollouts: Rollouts, problem: Callable[[str], Problem], learner: Learner) -> None:
        self.rollouts, self.problem, self.learner = rollouts, problem, learner

    def __len__(self) -> int:
        return len(self.rollouts)

    def images(self, at: int) -> tuple[bytes, ...]:
        """The images of the problem at this index."""
        return self._problem(at).images

    def view(self, at: int) -> ProblemView:
        """The problem at this index."""
        made = self._problem(at)
        return ProblemView(
            id=made.id,
            benchmark=made.task,
            question_type=str(made.meta.get("question_type", "")),
            question=made.question,
            answer=made.answer,
            n_images=len(made.images),
            candidates=tuple(self._candidate(one, made) for one in self.rollouts[at]),
        )

    def _problem(self, at: int) -> Problem:
        return self.problem(self.rollouts[at][0].trajectory.problem_id)

    def _candidate(self, one: Rated, problem: Problem) -> CandidateView:
        path = one.trajectory
        before, now = ({}, {}) if one.excluded else log_probabilities(one, problem, self.learner)
        asked = tuple(StepView(text=step.text, kind=step.kind, region=step.region) for step in path.about)
        steps = tuple(
            StepView(
                text=step.text,
                kind=step.kind,
                reward=None if one.scores is None else one.scores[k],
                correct=None if one.truth is None or one.truth[k] is None else one.truth[k] == 1,
                note=_note(one, k, before, now),
                region=step.region,
            )
            for k, step in enumerate(path.steps)
        )
        right = None if one.outcome is None else one.outcome == 1
        return CandidateView((*asked, *steps), path.answer, right, path.stop if not one.excluded else one.excluded)


def _note(one: Rated, step: int, before: Nats, now: Nats) -> str:
    if one.excluded:
        return ""
    advantage = one.advantages[step]
    said = "advantage: no result" if advantage is None else f"advantage {advantage:+.3f}"
    return f"{said}; log-probability {before.get(step, 0.0):.2f} when sampled, {now.get(step, 0.0):.2f} now"


@torch.no_grad()
def log_probabilities(one: Rated, problem: Problem, learner: Learner) -> tuple[Nats, Nats]:
    """The log-probability of each step when it was sampled and under the learner's policy."""
    (row,) = rows_of([one], problem, learner.inputs)
    now_N = learner.log_probabilities(learner.checkpoint, policy_batch([row], learner.inputs))
    path = path_of(one.trajectory, problem, learner.inputs)
    trained = [step for known, step in zip(path.logprobs, path.steps, strict=True) if known is not None]
    before: dict[int, float] = defaultdict(float)
    now: dict[int, float] = defaultdict(float)
    for step, old, new in zip(trained, row.sampled, now_N.tolist(), strict=True):
        before[step] += old
        now[step] += new
    return before, now


def write_page(
    run: Path, rounds: Sequence[Mapping[str, Any]], problem: Callable[[str], Problem], learner: Learner
) -> None:
    """Write the page of a run that has learnt at least one round."""
    views = RoundViews(read_round(run, learner.round - 1) or [], problem, learner)
    page = render_page(f"policy learning, {run.name}", [policy_section(rounds)], views)
    write_atomically(run / PAGE, page)
