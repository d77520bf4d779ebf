"""Held-out problems -> one stored pool of N candidate solutions each. Every selector reads this pool.

python -m eval.candidates --config configs/demo/candidates.yaml
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jsonargparse.typing import NonNegativeFloat, PositiveInt

from vlprm.backbones import checkpoint_folder, placement
from vlprm.config import dump, run
from vlprm.engines import Engine, Request
from vlprm.engines.choose import ServerConfig, open_engine
from vlprm.records import Records, finish, in_units, open_run, timed
from vlprm.rollout import rollouts
from vlprm.schema import Problem, Solution, to_json
from vlprm.tasks import TASKS, Tasks, load_tasks, problem_by_id
from vlprm.tasks.synthetic import item_ids

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CandidatesConfig:
    """Sample candidate pools.

    Args:
        run: folder to write.
        policy: checkpoint of the policy.
        tasks: task names or module paths.
        split: split of the tasks.
        problems: how many, over all tasks, taking turns.
        n: candidates a problem.
        temperature: of the sampling.
        max_tokens: of one turn of a candidate.
        unit: problems that are sampled together and recorded together.
        seed: decides every sample.
        server: where the policy is served, in place of this process; `policy` is the folder that is served.
        device: auto (the GPU where there is one), cpu, cuda, or cuda:1 and so on; config.yaml keeps what auto was.
        dtype: float32, or bfloat16 for half the memory.
    """

    run: Path
    policy: str = "builtin/policy"
    tasks: tuple[str, ...] = tuple(TASKS)
    split: str = "test"
    problems: PositiveInt = 400
    n: PositiveInt = 8
    temperature: NonNegativeFloat = 1.0
    max_tokens: PositiveInt = 160
    unit: PositiveInt = 100
    seed: int = 0
    server: ServerConfig = ServerConfig()
    device: str = "auto"
    dtype: str = "float32"


def main(config: CandidatesConfig) -> None:
    tasks = load_tasks(config.tasks)
    ids = item_ids(list(tasks.values()), config.split, config.problems)
    device, _ = placement(config.device, config.dtype)
    config = dataclasses.replace(config, device=device)
    open_run(config.run, dump(config), config.seed, [checkpoint_folder(config.policy)])
    records = Records(config.run / "candidates.jsonl")
    with timed(config.run, "candidates"):
        if units := list(in_units(ids, config.unit, records, key=lambda i: i)):
            asyncio.run(_sample(units, tasks, records, config))
    finish(records)
    stops = Counter(s["stop"] for record in records for s in record["solutions"])
    log.info("how candidates ended: %s", ", ".join(f"{stop} {count}" for stop, count in stops.most_common()))


async def _sample(units: list[list[str]], tasks: Tasks, records: Records, config: CandidatesConfig) -> None:
    total = len(records.keys) + sum(map(len, units))
    async with open_engine(config.policy, config.device, config.dtype, config.server) as engine:
        for unit in units:
            pools = await _sample_all([problem_by_id(i, tasks) for i in unit], engine, config)
            records.append(
                {"key": i, "solutions": [to_json(s) for s in pool]} for i, pool in zip(unit, pools, strict=True)
            )
            log.info("%d of %d problems sampled", len(records.keys), total)


async def _sample_all(problems: Sequence[Problem], engine: Engine, config: CandidatesConfig) -> list[list[Solution]]:
    requests = [Request(p, (), config.n, p.id, config.seed, config.temperature, config.max_tokens) for p in problems]
    return list(await asyncio.gather(*(rollouts(engine, request) for request in requests)))


if __name__ == "__main__":
    run(main, CandidatesConfig)
