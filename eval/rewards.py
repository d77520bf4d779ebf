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

from vlprm.backbones import Checkpoint, checkpoint_folder, placement
from vlprm.config import dump, run
from vlprm.records import Records, in_units, open_run, read_records, timed
from vlprm.reward_model import load_reward_model
from vlprm.schema import Solution, from_json
from vlprm.scoring import score_steps, score_whole
from vlprm.tasks import problem_by_id

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RewardsConfig:
    """Score a pool.

    Args:
        candidates: run folder of eval.candidates.
        reward_model: checkpoint folder of train.prm.
        run: folder to write.
        unit: problems that are scored together and recorded together.
        device: auto (the GPU where there is one), cpu, cuda, or cuda:1 and so on; config.yaml keeps what auto was.
        dtype: float32, or bfloat16 for half the memory.
    """

    candidates: Path
    reward_model: Path
    run: Path
    unit: int = 50
    device: str = "auto"
    dtype: str = "float32"


def main(config: RewardsConfig) -> None:
    source = config.candidates / "candidates.jsonl"
    pools = read_records(source)
    if not pools:
        raise ValueError(f"{config.candidates} has no candidates; make them with `python -m eval.candidates`")
    device, dtype = placement(config.device, config.dtype)
    config = dataclasses.replace(config, device=device)
    open_run(config.run, dump(config), 0, [source, checkpoint_folder(config.reward_model)])
    records = Records(config.run / "rewards.jsonl")
    with timed(config.run, "rewards"):
        if units := list(in_units(pools, config.unit, records, key=lambda pool: pool["key"])):
            checkpoint = load_reward_model(config.reward_model, device, dtype)
            for unit in units:
                records.append(_scored(unit, checkpoint))
                log.info("%d of %d problems scored", len(records.keys), len(pools))


def _scored(unit: list[dict[str, Any]], checkpoint: Checkpoint) -> list[dict[str, Any]]:
    solutions = [(problem_by_id(r["key"]), from_json(Solution, s)) for r in unit for s in r["solutions"]]
    pairs = [(problem, solution.steps) for problem, solution in solutions]
    by_candidate = iter(zip(score_steps(checkpoint, pairs), score_whole(checkpoint, pairs), strict=True))
    return [
        {
            "key": record["key"],
            "candidates": [
                {"steps": [asdict(s) for s in steps], "whole": whole}
                for steps, whole in (next(by_candidate) for _ in record["solutions"])
            ],
        }
        for record in unit
    ]


if __name__ == "__main__":
    run(main, RewardsConfig)
