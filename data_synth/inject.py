"""Put wrong siblings of right steps into search trees: steps known to be wrong, with the right step beside them.

    python -m data_synth.inject --config configs/synthesis/inject.yaml

Writes a copy of a tree run in which some right steps have one more sibling: the same step with one changed claim. Its
vote, by the source `injected`, says that it is wrong, of what kind, and what the right step is. No rollout can label
such a step: a misread fact often leaves the answer as it is. Judge and label the new run like any tree run.

There are two makers. `family` writes as the drawn family does: it knows the truth and declares it, and takes a step
for right if it is true, with all before it. `model` rewrites a step as it is asked, so its word is not the truth; it
takes a step for right if a right answer was often reached from it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_synth.injected.config import InjectConfig
from data_synth.injected.family import slips_of_tree
from data_synth.injected.model import rewrites_of_tree
from data_synth.injected.tree import INJECTED_FILE, Injected, chosen, with_injected
from data_synth.search.store import IMAGES, SUMMARY, TREES, Failed, Searched, TreeRun, failure_record, tree_record
from vlprm.errors import UserError
from vlprm.labels.fusion import INJECTED
from vlprm.policy.open import open_judge
from vlprm.policy.replay import ANSWERS, ReplayPolicy
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, timed, write_atomically
from vlprm.runs.journal import Records, finish
from vlprm.runs.progress import progress, tracked
from vlprm.runs.window import in_window, leave_unless, stopped_by_sigint
from vlprm.serving.config import ModelConfig
from vlprm.tasks import load_tasks, refuse_other_tasks, task_of

log = logging.getLogger(__name__)

EXACT = {"specificity": 0.999, "sensitivity": 0.999}  # declared by the family, which knows the truth
Made = tuple[int, Searched, list[Injected]]  # index in the run, the tree, its injected steps


def main(config: InjectConfig) -> None:
    """Run `vlprm inject`."""
    if config.maker == "model" and config.model is None:
        raise UserError("maker: model needs a model; set model to a checkpoint folder, or maker: family")
    if config.maker == "family" and config.model is not None:
        raise UserError("maker: family asks no model; set maker: model, or leave out model")
    trees = TreeRun(config.trees)
    tasks = load_tasks(config.tasks) if config.maker == "family" else {}
    if config.maker == "family":
        if own := next((name for name in trees.ids if "@" not in name), None):
            raise UserError(f"{own} is a problem of a file, which no drawn family knows; set maker: model")
        refuse_other_tasks(trees.ids, tasks)
    open_run(config.run, dump(config), config.seed, trees.files)
    records = Records(config.run / TREES, SUMMARY)
    counts: Counter[str] = Counter()
    with timed(config.run, "inject"):
        if config.maker == "model":
            assert config.model is not None
            asyncio.run(_rewrite(trees, records, config.model, config, counts))
        else:
            for at, searched in enumerate(tracked(trees, "trees", len(trees))):
                if searched.problem.id not in records.keys:
                    family = task_of(searched.problem.task, tasks)
                    found = slips_of_tree(family, searched.problem, searched.tree, config.kinds)
                    rng = random.Random(f"{config.seed} {searched.problem.id}")
                    _keep((at, searched, chosen(found, _most(searched, config), rng)), records, config)
    leave_unless(len(trees) <= len(records.keys))
    _finish(trees, records, config, counts)


def _most(searched: Searched, config: InjectConfig) -> int:
    allowed = int(float(config.share) * len(searched.tree.nodes))
    return min(int(config.per_tree), allowed)


async def _rewrite(
    trees: TreeRun, records: Records, model: ModelConfig, config: InjectConfig, counts: Counter[str]
) -> None:
    async with open_judge(model) as engine:
        with stopped_by_sigint() as stopping, progress("trees", len(trees), len(records.keys)) as reached:
            kept = ReplayPolicy(engine, config.run / ANSWERS, records.keys, stopping)

            async def made(place: tuple[int, Searched]) -> Made:
                at, one = place
                most = _most(one, config)
                return at, one, await rewrites_of_tree(one.problem, one.tree, kept, config, most, counts)

            todo = ((at, one) for at, one in enumerate(trees) if one.problem.id not in records.keys)
            async for done in in_window(todo, made, config.in_flight, stopping):
                _keep(done, records, config)
                kept.forget(done[1].problem.id)
                reached(len(records.keys))
            kept.compact()


def _keep(made: Made, records: Records, config: InjectConfig) -> None:
    at, searched, injected = made
    tree = with_injected(searched.tree, injected)
    records.append([tree_record(at, Searched(searched.problem, tree), config.run / IMAGES)])


def _finish(trees: TreeRun, records: Records, config: InjectConfig, failures: Counter[str]) -> None:
    """Count the injected steps and finish the run. UserError if there are none."""
    said = Counter(vote["reason"] for record in records if "tree" in record for vote in _votes(record))
    if not said:
        raise UserError(
            f"no step was injected; raise share (now {config.share}) or per_tree, or name other kinds than"
            f" {', '.join(config.kinds)}"
        )
    lost = [failure_record(len(trees) + n, Failed(name, *why)) for n, (name, why) in enumerate(trees.failures.items())]
    records.append(record for record in lost if record["key"] not in records.keys)
    told = {"maker": _maker(config), "share": config.share, "rates": EXACT if config.maker == "family" else None}
    write_atomically(config.run / INJECTED_FILE, json.dumps(told) + "\n")
    finish(records)
    log.info("%d steps injected into %d trees: %s", said.total(), len(trees), dict(said))
    if failures:
        log.warning("%d steps could not be made: %s", failures.total(), dict(failures))


def _votes(record: dict[str, Any]) -> Sequence[dict[str, Any]]:
    nodes = record["tree"]["nodes"]
    return [vote for node in nodes if (vote := node["label"]["votes"].get(INJECTED))]


def _maker(config: InjectConfig) -> str:
    if config.maker == "family":
        return "written by the drawn family"
    assert config.model is not None
    return f"rewritten by {Path(config.model.checkpoint).name}"


if __name__ == "__main__":
    run(main, InjectConfig)
