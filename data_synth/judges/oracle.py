"""The stand-in for a strong judge: it knows the scene of a synthetic problem and errs at a declared, seeded rate, in
its verdicts and in what it says that a first wrong step should have been.

It exists so that the demo needs no server; its numbers are those of a simulated judge wherever they appear.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from vlprm.schema import ErrorKind, Problem, Step, StepTree, Verdict
from vlprm.tasks.scene import rng_for
from vlprm.tasks.synthetic import SyntheticFamily, V, truthful

KINDS = ("perception", "reasoning")
SLIP_RATE = 0.3  # of a correction that is to be wrong


def oracle_verdicts(
    family: SyntheticFamily, problem: Problem, tree: StepTree, error_rate: float, seed: int
) -> list[Verdict | None]:
    """A verdict on each node of a tree. A prefix that solutions share is judged once."""
    verdicts: list[Verdict | None] = [None] * len(tree.nodes)
    for leaf, _ in tree.leaves:
        path = tree.path(leaf)
        steps = [tree.nodes[n].step for n in path]
        for node, verdict in zip(path, oracle_judge(family, problem, steps, error_rate, seed), strict=True):
            verdicts[node] = verdict
    return verdicts


def oracle_judge(
    family: SyntheticFamily, problem: Problem, steps: Sequence[Step], error_rate: float, seed: int
) -> list[Verdict | None]:
    """A verdict a step, wrong with probability `error_rate`; None where the step's text does not parse. The first that
    calls its step wrong has a correction, as a model's has (`vlprm.labels.judge`).

    The same prefix gets the same verdict in every solution that it opens.
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
    if verdict is None or rng.random() >= error_rate:
        return verdict
    return Verdict(False, rng.choice(KINDS)) if verdict.correct else Verdict(True)  # type: ignore[arg-type]


def _correction(
    family: SyntheticFamily, problem: Problem, steps: Sequence[Step], rng: random.Random, error_rate: float
) -> str:
    """What the last step should have been; with probability `error_rate`, and always where nothing was wrong with it,
    something that it should not have been. Empty where the truth, or a slip, has nothing to put in its place."""

    def slipping(kind: ErrorKind, concept: str, truth: V, near: Sequence[V]) -> V:
        return rng.choice(near) if near and rng.random() < SLIP_RATE else truth

    written, right = steps[-1].text.strip(), family.solved_step(problem, steps, truthful)
    if right is None or (right != written and rng.random() >= error_rate):
        return right or ""
    slips = (family.solved_step(problem, steps, slipping) for _ in range(8))
    return next((slip for slip in slips if slip not in (None, written, right)), None) or ""
