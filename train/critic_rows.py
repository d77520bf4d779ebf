"""Make training rows for a critic from labelled solutions: critiques that agree with the labels, pairs of critiques,
or prompts for reinforcement learning.

    python -m train.critic_rows --config configs/demo/critic_pairs.yaml

The critic criticises each step up to the first wrong one several times. A critique that has the label's verdict is
kept (ThinkPRM, arXiv 2504.16828; with `policy`, only if solutions that go on from its correction are right, as in
AutoMathCritique, arXiv 2411.16579), and is paired with one that has not (R-PRM). A critique that cannot be read is
neither. The same command continues a killed run.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from datasets import Features

from train.policy.critic_rows import FEATURES, Criticised, criticised, prompt_rows, sampled_rows, steps_of
from train.policy.critic_rows_config import CriticRowsConfig
from vlprm.data.dataset import iterate_rows, row_count, row_paths, write_parquet
from vlprm.errors import ProblemError, UserError
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import checkpoint_folder, load_inputs
from vlprm.policy import Policy, all_answers
from vlprm.policy.open import folders_of, open_policy
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, write_atomically
from vlprm.runs.journal import Records
from vlprm.runs.progress import progress
from vlprm.runs.window import in_window, leave_unless, stopped_by_sigint
from vlprm.scoring.open import critique_template_of, open_critic

log = logging.getLogger(__name__)

CRITIQUES, RESULTS = "critiques.jsonl", "results.json"


def main(config: CriticRowsConfig) -> None:
    """Run `vlprm critic-rows`."""
    problems = row_count(config.dataset)
    models = [config.critic, *([config.policy] if config.policy else [])]
    own, served = folders_of(models)
    open_run(config.run, dump(config), config.seed, [config.dataset, *own], served)
    path = config.run / f"{config.rows}.parquet"
    if path.exists():
        log.info("%s already exists", path)
        return
    records = Records(config.run / CRITIQUES)
    if config.rows != "prompts":
        asyncio.run(_sample(config, records, problems))
        leave_unless(len(records.keys) == problems)
    inputs = load_inputs(checkpoint_folder(config.critic.checkpoint, weights=not config.critic.is_served))
    counts: Counter[str] = Counter()
    written = write_parquet(path, _rows(config, records, inputs, counts), Features(FEATURES[config.rows]))
    write_atomically(config.run / RESULTS, json.dumps(dict(counts), indent=2) + "\n")
    _refuse_useless(config, path, written, counts)
    log.info("%s: %d rows; %s", path, written, dict(counts))


async def _sample(config: CriticRowsConfig, records: Records, problems: int) -> None:
    template = critique_template_of(config.critic)
    async with _opened(config) as (critic, policy):
        with stopped_by_sigint() as stopping, progress("problems", problems, len(records.keys)) as reached:

            async def asked(row: dict[str, Any]) -> dict[str, Any]:
                steps = steps_of(row_paths(row), config)
                try:
                    found = await all_answers(criticised(step, config, template, critic, policy) for step in steps)
                except ProblemError as error:
                    return {"key": row["id"], "failure": error.cause}
                return {"key": row["id"], "steps": [one.record() for one in found]}

            todo = (row for row in iterate_rows(config.dataset) if row["id"] not in records.keys)
            async for record in in_window(todo, asked, config.in_flight, stopping):
                records.append([record])
                reached(len(records.keys))


@asynccontextmanager
async def _opened(config: CriticRowsConfig) -> AsyncIterator[tuple[Policy, Policy | None]]:
    async with AsyncExitStack() as opened:
        critic = await opened.enter_async_context(open_critic(config.critic))
        policy = await opened.enter_async_context(open_policy(config.policy)) if config.policy else None
        yield critic, policy


def _rows(
    config: CriticRowsConfig, records: Records, inputs: InputBuilder, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    if config.rows == "prompts":
        for row in iterate_rows(config.dataset):
            yield from prompt_rows(steps_of(row_paths(row), config), inputs, counts)
        return
    counts.update(f"problems_with_{record['failure']}" for record in records if "failure" in record)
    said = {
        record["key"]: [Criticised.of(one) for one in record["steps"]] for record in records if "failure" not in record
    }
    for row in iterate_rows(config.dataset):
        if row["id"] not in said:
            continue
        steps = steps_of(row_paths(row), config)
        for step, critiques in zip(steps, said[row["id"]], strict=True):
            yield from sampled_rows(step, critiques, config.rows, inputs, counts)


def _refuse_useless(config: CriticRowsConfig, path: Path, written: int, counts: Counter[str]) -> None:
    """UserError, and no file, without rows, or if all are of one class."""
    seen = {name: counts[f"{name}_steps"] for name in ("right", "wrong")}
    if written and all(seen.values()):
        return
    path.unlink()
    if not all(seen.values()):
        raise UserError(
            f"{config.dataset} gives {seen['right']} right and {seen['wrong']} wrong steps to criticise; a critic"
            " learns nothing from one class alone, so label problems that are solved sometimes, or raise solutions"
        )
    if config.rows == "prompts":
        raise UserError(f"no problem of {config.dataset} has both right and wrong steps; raise solutions")
    raise UserError(f"no critique is of use ({dict(counts)}); raise samples or temperature, or train the critic first")


if __name__ == "__main__":
    run(main, CriticRowsConfig)
