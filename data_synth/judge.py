"""Judge the steps of search trees.

    python -m data_synth.judge --config configs/demo/judge.yaml      the tasks' oracle, with a declared error rate
    python -m data_synth.judge --config configs/server/judge.yaml    a served vision-language model

Writes `judgements.jsonl`, one record per tree: `verdicts` has a verdict or null (no result, or not asked) per node,
`solutions` the leaves of the judged solutions, `failures` the number of judgements without result by cause. The same
command resumes a run that was killed or stopped by SIGINT. On a finished run, it repeats requests that servers failed
to answer. If no judgement could be read, nothing is kept, and the same command asks again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from data_synth.judges.config import JUDGEMENTS, JudgeConfig
from data_synth.judges.model import Judged, judge_tree
from data_synth.judges.oracle import oracle_verdicts
from data_synth.judges.store import SUMMARY
from data_synth.search.store import Searched, TreeRun
from data_synth.search.tree import read_solutions
from vlprm.errors import UserError
from vlprm.policy.open import open_chat, open_policy
from vlprm.policy.replay import ANSWERS, ReplayPolicy
from vlprm.policy.usage import CountedPolicy
from vlprm.runs.config import dump, run
from vlprm.runs.cost import Meter
from vlprm.runs.folder import open_run, timed
from vlprm.runs.index import UNANSWERED, Entry
from vlprm.runs.journal import Records, finish, record_at
from vlprm.runs.progress import progress
from vlprm.runs.window import (
    drop_failed,
    in_window,
    leave_unless,
    refuse_if_all_failed,
    stopped_by_sigint,
    tell_unanswered,
)
from vlprm.serving.config import ModelConfig, device_count
from vlprm.tasks import Tasks, load_tasks, refuse_other_tasks, task_of

log = logging.getLogger(__name__)


def main(config: JudgeConfig) -> None:
    """Run `vlprm judge`."""
    if config.judge == "model" and config.model is None:
        raise UserError("judge: model needs a model; set model to a checkpoint folder, or judge: oracle")
    trees = TreeRun(config.trees)
    tasks = load_tasks(config.tasks) if config.judge == "oracle" else {}
    if config.judge == "oracle":
        if own := next((name for name in trees.ids if "@" not in name), None):
            raise UserError(
                f"{own} is a problem of a file, and the oracle knows drawn problems alone; set judge: model"
            )
        refuse_other_tasks(trees.ids, tasks)
    open_run(config.run, dump(config), config.seed, trees.files)
    records = Records(config.run / JUDGEMENTS, SUMMARY)
    drop_failed(records)
    with timed(config.run, "judge"):
        if config.judge == "oracle":
            _ask_oracle(trees, records, tasks, config)
        else:
            assert config.model is not None
            asyncio.run(_ask_model(trees, records, config.model, config))
    leave_unless(len(records.keys) == len(trees))
    refuse_if_all_failed(records, lambda record: str(record["example"]), "no judgement could be read", "fix the judge")
    finish(records)
    _report(records)


def _ask_oracle(trees: TreeRun, records: Records, tasks: Tasks, config: JudgeConfig) -> None:
    with progress("trees", len(trees), len(records.keys)) as reached:
        for searched in trees.every(1, but=records.keys):
            problem = searched.problem
            family = task_of(problem.task, tasks)
            verdicts = oracle_verdicts(family, problem, searched.tree, config.error_rate, config.seed)
            judged = Judged(verdicts, read_solutions(problem, searched.tree))
            records.append([_record(problem.id, f"oracle with error rate {config.error_rate}", judged)])
            reached(len(records.keys))


async def _ask_model(trees: TreeRun, records: Records, model: ModelConfig, config: JudgeConfig) -> None:
    """Judge up to `in_flight` trees concurrently. Answers are stored until the record of their tree is written."""
    name = f"{Path(model.checkpoint).name} with {config.ask.template}"
    with stopped_by_sigint() as stopping:
        async with open_chat(model.server) if model.is_served else open_policy(model) as engine:
            counted = CountedPolicy(engine)
            kept = ReplayPolicy(counted, config.run / ANSWERS, records.keys, stopping)

            async def judged(searched: Searched) -> dict[str, Any]:
                verdicts = await judge_tree(searched.problem, searched.tree, kept, config.ask, config.seed)
                return _record(searched.problem.id, name, verdicts)

            todo = trees.every(1, but=records.keys)
            meter = Meter(config.run, "judge", device_count(model))
            with progress("trees", len(trees), len(records.keys)) as reached, meter:
                async for record in in_window(todo, judged, config.in_flight, stopping):
                    records.append([record])
                    reached(len(records.keys))
                    meter.used(counted.usage)
                    if not record["unanswered"]:
                        kept.forget(record["key"])
            kept.compact()


def _record(problem_id: str, judge: str, judged: Judged) -> dict[str, Any]:
    return {
        "key": problem_id,
        "judge": judge,
        "verdicts": [None if verdict is None else dataclasses.asdict(verdict) for verdict in judged.verdicts],
        "solutions": judged.solutions,
        "failures": dict(judged.failures),
        "example": judged.example,
        "unanswered": judged.unanswered,
        "requests": judged.requests,
        "tokens": judged.tokens,
    }


def _report(records: Records) -> None:
    failures: Counter[str] = Counter()
    said = unanswered = 0
    example: Entry | None = None
    for entry in records.entries():
        failures.update(entry.note["failures"])
        said += entry.note["verdicts"]
        unanswered += entry.note[UNANSWERED]
        example = example or (entry if entry.note["failures"] else None)
    log.info(
        "%d trees judged, %d steps with a verdict; no result: %s", len(records.keys), said, dict(failures) or "none"
    )
    if example is not None:
        log.warning("the first judgement without result: %s", record_at(records.path, example.place)["example"])
    tell_unanswered(unanswered)


if __name__ == "__main__":
    run(main, JudgeConfig)
