"""Problems -> search trees: sample a policy's steps and give every prefix its Monte Carlo counts.

    python -m data_synth.trees --config configs/demo/trees.yaml

Writes `trees.jsonl` (a record a problem, resumable) into the run folder. Problems go through the engine in common
batches.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

from jsonargparse.typing import PositiveInt

from data_synth.omega import OmegaConfig, grow, is_mixed
from data_synth.store import IMAGES, Searched, tree_record
from vlprm.backbones import checkpoint_folder, placement
from vlprm.config import dump, run
from vlprm.engines import Engine
from vlprm.engines.choose import ServerConfig, open_engine
from vlprm.records import Records, finish, in_units, open_run, timed
from vlprm.schema import Problem, StepTree, from_json
from vlprm.tasks import TASKS, Tasks, load_tasks, problem_by_id
from vlprm.tasks.synthetic import item_ids

log = logging.getLogger(__name__)

FIRST_ITEM = 900_000  # far behind the items that the built-in models were taught with


@dataclass(frozen=True)
class TreesConfig:
    """Grow search trees.

    Args:
        run: folder to write.
        policy: checkpoint of the policy whose steps are searched.
        tasks: task names or module paths.
        split: split of the tasks.
        problems: how many, over all tasks, taking turns.
        unit: problems that are searched together and recorded together.
        search: the numbers of the tree search.
        seed: decides every sample.
        server: where the policy is served, in place of this process; `policy` is the folder that is served.
        device: auto (the GPU where there is one), cpu, cuda, or cuda:1 and so on; config.yaml keeps what auto was.
        dtype: float32, or bfloat16 for half the memory.
    """

    run: Path
    policy: str = "builtin/policy"
    tasks: tuple[str, ...] = tuple(TASKS)
    split: str = "train"
    problems: PositiveInt = 1000
    unit: PositiveInt = 125
    search: OmegaConfig = OmegaConfig()
    seed: int = 0
    server: ServerConfig = ServerConfig()
    device: str = "auto"
    dtype: str = "float32"


def main(config: TreesConfig) -> None:
    tasks = load_tasks(config.tasks)
    ids = item_ids(list(tasks.values()), config.split, config.problems, FIRST_ITEM)
    device, _ = placement(config.device, config.dtype)
    config = dataclasses.replace(config, device=device)
    open_run(config.run, dump(config), config.seed, [checkpoint_folder(config.policy)])
    records = Records(config.run / "trees.jsonl")
    with timed(config.run, "trees"):
        if units := list(in_units(ids, config.unit, records, key=lambda i: i)):
            asyncio.run(_search(units, ids, tasks, records, config))
    finish(records)
    _report(records)


async def _search(units: list[list[str]], ids: list[str], tasks: Tasks, records: Records, config: TreesConfig) -> None:
    total = len(records.keys) + sum(map(len, units))
    async with open_engine(config.policy, config.device, config.dtype, config.server) as engine:
        for unit in units:
            problems = [problem_by_id(i, tasks) for i in unit]
            trees = await _grow_all(problems, engine, config)
            at = {i: n for n, i in enumerate(ids)}
            records.append(
                tree_record(at[p.id], Searched(p, t), config.run / IMAGES) for p, t in zip(problems, trees, strict=True)
            )
            log.info("%d of %d problems searched", len(records.keys), total)


async def _grow_all(problems: list[Problem], engine: Engine, config: TreesConfig) -> list[StepTree]:
    return list(await asyncio.gather(*(grow(p, engine, config.search, config.seed) for p in problems)))


def _report(records: Records) -> None:
    trees = [from_json(StepTree, record["tree"]) for record in records]
    mixed = sum(is_mixed(tree) for tree in trees)
    failed = sum(tree.root.mc_total - tree.root.mc_valid for tree in trees)
    log.info(
        "%d trees, %d solved sometimes and not always; %d rollouts, %d steps, %d root rollouts without result",
        len(trees), mixed, sum(t.rollouts for t in trees), sum(len(t.nodes) for t in trees), failed,
    )  # fmt: skip


if __name__ == "__main__":
    run(main, TreesConfig)
