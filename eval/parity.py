"""Check that servers score like this process: score the same stored candidates both ways.

    vllm serve runs/demo/prm --served-model-name prm --dtype float32 --runner pooling
    python -m eval.parity --config configs/server/parity.yaml

Prints the largest and the mean gap between the two rewards of a step. UserError if the largest exceeds `bound`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from eval.step_scores.config import ParityConfig
from vlprm.errors import UserError
from vlprm.model.loading import placement
from vlprm.published.load import load
from vlprm.runs.config import run
from vlprm.runs.pools import stored_pools
from vlprm.schema import Problem, Step, StepScore
from vlprm.scoring.open import open_served_scorer
from vlprm.scoring.tree import score_steps
from vlprm.tasks import load_tasks, problem_by_id, refuse_other_tasks

Solutions = Sequence[tuple[Problem, Sequence[Step]]]


@dataclass(frozen=True)
class Gaps:
    """The largest and the mean gap over the `steps` with both scores. A step's gap is the largest absolute difference
    of its `correct`, value and standard deviation. `no_results`: steps that lack a score."""

    largest: float
    mean: float
    steps: int
    no_results: int

    def __str__(self) -> str:
        return (
            f"largest gap {self.largest:.2e}, mean gap {self.mean:.2e}, over {self.steps} steps;"
            f" {self.no_results} steps without a result"
        )


def main(config: ParityConfig) -> None:
    """Print the gaps between served and in-process rewards."""
    solutions = _solutions(config)
    served = asyncio.run(_served(config, solutions))
    model = config.reward_model
    checkpoint = load(model.checkpoint, *placement(model.device, model.dtype))
    found = gaps(score_steps(checkpoint, solutions), served)
    print(found)
    if found.largest > config.bound:
        raise UserError(
            f"the largest gap, {found.largest:.2e}, is above the bound of {config.bound:g}; serve {model.checkpoint}"
            " in the dtype of this process, or raise bound"
        )


def gaps(own: Sequence[Sequence[StepScore | None]], served: Sequence[Sequence[StepScore | None]]) -> Gaps:
    """The gaps between two lists of scores per solution. UserError if no step has both scores."""
    pairs = [pair for a, b in zip(own, served, strict=True) for pair in zip(a, b, strict=True)]
    apart = [_gap(here, there) for here, there in pairs if here is not None and there is not None]
    if not apart:
        raise UserError(f"the servers scored none of the {len(pairs)} steps; check their logs")
    return Gaps(max(apart), sum(apart) / len(apart), len(apart), len(pairs) - len(apart))


def _gap(here: StepScore, there: StepScore) -> float:
    """The largest gap between the numbers that both scores have."""
    numbers = ((here.correct, there.correct), (here.value, there.value), (here.sd, there.sd))
    return max(abs(a - b) for a, b in numbers if a is not None and b is not None)


def _solutions(config: ParityConfig) -> Solutions:
    tasks = load_tasks(config.tasks)
    pools = stored_pools(config.candidates)[: config.problems]
    refuse_other_tasks((problem_id for problem_id, _ in pools), tasks)
    return [(problem_by_id(i, tasks), solution.steps) for i, solutions in pools for solution in solutions]


async def _served(config: ParityConfig, solutions: Solutions) -> list[list[StepScore | None]]:
    async with open_served_scorer(config.reward_model) as scores:
        return await scores.score_steps(solutions)


if __name__ == "__main__":
    run(main, ParityConfig)
