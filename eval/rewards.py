"""Score a stored pool of candidates with a step-reward model.

    python -m eval.rewards --config configs/demo/rewards.yaml

Writes `rewards.jsonl`: for each problem, step scores of each candidate, and the score of the whole read as one step.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt

from vlprm.backbones import Checkpoint, checkpoint_folder, placement
from vlprm.config import dump, run
from vlprm.records import Records, finish, finished_records, in_units, open_run, timed
from vlprm.reward_model import load_reward_model
from vlprm.schema import Solution, from_json
from vlprm.scoring import score_steps, score_whole
from vlprm.tasks import TASKS, Tasks, load_tasks, problem_by_id, refuse_other_tasks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RewardsConfig:
    """Score a pool.

    Args:
        candidates: run folder of eval.candidates.
        reward_model: checkpoint folder of train.prm.
        run: folder to write.
        tasks: task names or module paths, as they were given to eval.candidates.
        unit: problems that are scored together and recorded together.
        device: auto (the GPU where there is one), cpu, cuda, or cuda:1 and so on; config.yaml keeps what auto was.
        dtype: float32, or bfloat16 for half the memory.
    """

    candidates: Path
    reward_model: Path
    run: Path
    tasks: tuple[str, ...] = tuple(TASKS)
    unit: PositiveInt = 50
    device: str = "auto"
    dtype: str = "float32"


def main(config: RewardsConfig) -> None:
    tasks = load_tasks(config.tasks)
    source = config.candidates / "candidates.jsonl"
    pools = finished_records(source, "eval.candidates")
    refuse_other_tasks((pool["key"] for pool in pools), tasks)
    device, dtype = placement(config.device, config.dtype)
    config = dataclasses.replace(config, device=device)
    open_run(config.run, dump(config), 0, [source, checkpoint_folder(config.reward_model)])
    records = Records(config.run / "rewards.jsonl")
    with timed(config.run, "rewards"):
        if units := list(in_units(pools, config.unit, records, key=lambda pool: pool["key"])):
            checkpoint = load_reward_model(config.reward_model, device, dtype)
            for unit in units:
                records.append(_scored(unit, checkpoint, tasks))
                log.info("%d of %d problems scored", len(records.keys), len(pools))
    finish(records)


def _scored(unit: list[dict[str, Any]], checkpoint: Checkpoint, tasks: Tasks) -> list[dict[str, Any]]:
    solutions = [(problem_by_id(r["key"], tasks), from_json(Solution, s)) for r in unit for s in r["solutions"]]
    pairs = [(problem, solution.steps) for problem, solution in solutions]
    by_candidate = iter(zip(score_steps(checkpoint, pairs), score_whole(checkpoint, pairs), strict=True))
    return [
        {
            "key": record["key"],
            "candidates": [
                {"steps": [s and asdict(s) for s in steps], "whole": whole}
                for steps, whole in (next(by_candidate) for _ in record["solutions"])
            ],
        }
        for record in unit
    ]


if __name__ == "__main__":
    run(main, RewardsConfig)
