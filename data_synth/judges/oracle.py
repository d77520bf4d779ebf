"""A simulated judge for demos without a server: it knows the scene of a synthetic problem, and its verdicts and
corrections are wrong at a declared, seeded rate."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence

from vlprm.schema import ErrorKind, Problem, Step, StepTree, Verdict
from vlprm.tasks.scene import rng_for
from vlprm.tasks.synthetic import SyntheticFamily, V, truthful

KINDS = ("perception", "reasoning")
SLIP_RATE = 0.3  # probability of a slip per claim, in a wrong correction


def on_each_path(tree: StepTree, judge: Callable[[Sequence[Step]], Sequence[Verdict | None]]) -> list[Verdict | None]:
    """One verdict per node of a tree, by a judge of whole solutions whose verdict on a step depends on the steps up to
    it alone: a shared prefix gets the same verdicts in all of its solutions."""
    verdicts: list[Verdict | None] = [None] * len(tree.nodes)
    for leaf, _ in tree.leaves:
        path = tree.path(leaf)
        for node, verdict in zip(path, judge([tree.nodes[n].step for n in path]), strict=True):
            verdicts[node] = verdict
    return verdicts


def oracle_judge(
    family: SyntheticFamily, problem: Problem, steps: Sequence[Step], error_rate: float, seed: int
) -> list[Verdict | None]:
    """One verdict per step, wrong with probability `error_rate`; None if the step's text does not parse. The first
    verdict that calls its step wrong has a correction, as a model's does (`vlprm.labels.judge`).

    Verdicts are a function of the prefix and the seed.
    """
    truth = family.verdicts(problem, steps)
    said: list[Verdict | None] = []
    for i, verdict in enumerate(truth):
        key = (seed, problem.id, *(s.text for s in steps[: i + 1]))
        said.append(noisy(verdict, rng_for("judge", *key), error_rate))
    first = next((i for i, verdict in enumerate(said) if verdict and not verdict.correct), None)
    if first is not None:
        key = (seed, problem.id, *(s.text for s in steps[: first + 1]))
        correction = _correction(family, problem, steps[: first + 1], rng_for("correction", *key), error_rate)
        said[first] = dataclasses.replace(said[first], correction=correction)  # type: ignore[type-var]
    return said


def noisy(verdict: Verdict | None, rng: random.Random, error_rate: float) -> Verdict | None:
    """The verdict, flipped with probability `error_rate`; None stays None."""
    if verdict is None or rng.random() >= error_rate:
        return verdict
    return Verdict(False, rng.choice(KINDS)) if verdict.correct else Verdict(True)  # type: ignore[arg-type]


def _correction(
    family: SyntheticFamily, problem: Problem, steps: Sequence[Step], rng: random.Random, error_rate: float
) -> str:
    """A correction of the last step: the right step or, with probability `error_rate` and always if the step was right,
    a wrong one. Empty if there is none."""

    def slipping(kind: ErrorKind, concept: str, truth: V, near: Sequence[V]) -> V:
        return rng.choice(near) if near and rng.random() < SLIP_RATE else truth

    written, right = steps[-1].text.strip(), family.solved_step(problem, steps, truthful)
    if right is None or (right != written and rng.random() >= error_rate):
        return right or ""
    slips = (family.solved_step(problem, steps, slipping) for _ in range(8))
    return next((slip for slip in slips if slip not in (None, written, right)), None) or ""
