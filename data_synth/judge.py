"""Judge the steps of search trees.

    python -m data_synth.judge --config configs/demo/judge.yaml       the tasks' oracle, with a declared error rate
    python -m data_synth.judge --config configs/server/judge.yaml     a served vision-language model
    python -m data_synth.judge --config configs/synthesis/check.yaml  a checker, which needs no model
    python -m data_synth.judge --config configs/server/ask.yaml       a model that reads the image again

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
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data_synth.judges.asked import reread, reread_tree
from data_synth.judges.checks import CHECKS, RATES
from data_synth.judges.config import JUDGEMENTS, JudgeConfig
from data_synth.judges.model import Judged, judge_tree
from data_synth.judges.oracle import on_each_path, oracle_judge
from data_synth.judges.premises import premises_tree
from data_synth.judges.store import SUMMARY, VERDICT_COUNT
from data_synth.search.store import Searched, TreeRun
from data_synth.search.tree import read_solutions
from vlprm.errors import UserError
from vlprm.policy.open import open_judge
from vlprm.policy.replay import ANSWERS, ReplayPolicy
from vlprm.policy.usage import CountedPolicy
from vlprm.prompts import PREMISES
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
from vlprm.schema import Problem, Step, Verdict
from vlprm.serving.config import ModelConfig, device_count
from vlprm.tasks import Tasks, load_tasks, refuse_other_tasks, task_of

log = logging.getLogger(__name__)


def main(config: JudgeConfig) -> None:
    """Run `vlprm judge`."""
    _check(config)
    trees = TreeRun(config.trees)
    tasks = load_tasks(config.tasks) if config.needs_scenes else {}
    if config.needs_scenes:
        if own := next((name for name in trees.ids if "@" not in name), None):
            raise UserError(
                f"{own} is a problem of a file, and this judge knows drawn problems alone; set judge: model, or"
                " --check arithmetic"
            )
        refuse_other_tasks(trees.ids, tasks)
    open_run(config.run, dump(config), config.seed, trees.files)
    records = Records(config.run / JUDGEMENTS, SUMMARY)
    drop_failed(records)
    with timed(config.run, "judge"):
        if config.model is not None:
            asyncio.run(_ask_model(trees, records, config.model, config))
        else:
            _compute(trees, records, tasks, config)
    leave_unless(len(records.keys) == len(trees))
    _refuse_if_silent(records, config)
    finish(records)
    _report(records)


def _check(config: JudgeConfig) -> None:
    """UserError if the judge lacks a model, if it would read no model or rates that the config gives, or on rates that
    cannot be."""
    rates = config.rates
    if config.judge == "model" and config.model is None:
        raise UserError("judge: model needs a model; set model to a checkpoint folder, or judge: oracle")
    if config.judge in ("oracle", "check") and config.model is not None:
        raise UserError(f"judge: {config.judge} asks no model; set judge: model, or leave out model")
    if config.judge == "check" and rates:
        raise UserError("a check declares its own rates; leave out specificity and sensitivity")


def _compute(trees: TreeRun, records: Records, tasks: Tasks, config: JudgeConfig) -> None:
    """Judge with the oracle, a check or the simulated reader, which read all solutions."""
    names = {"oracle": f"oracle with error rate {config.error_rate}", "check": f"check of {config.check}"}
    name = names.get(config.judge, f"simulated reader with error rate {config.error_rate}")
    with progress("trees", len(trees), len(records.keys)) as reached:
        for searched in trees.every(1, but=records.keys):
            problem = searched.problem
            verdicts = on_each_path(searched.tree, partial(_computed, problem, tasks, config))
            judged = Judged(verdicts, read_solutions(problem, searched.tree))
            records.append([_record(problem.id, name, judged, config)])
            reached(len(records.keys))


def _computed(problem: Problem, tasks: Tasks, config: JudgeConfig, steps: Sequence[Step]) -> list[Verdict | None]:
    if config.judge == "check":
        return CHECKS[config.check](problem, steps, tasks)
    simulated = oracle_judge if config.judge == "oracle" else reread
    return simulated(task_of(problem.task, tasks), problem, steps, config.error_rate, config.seed)


async def _ask_model(trees: TreeRun, records: Records, model: ModelConfig, config: JudgeConfig) -> None:
    """Judge up to `in_flight` trees concurrently. Answers are stored until the record of their tree is written."""
    asks = config.judge == "ask"
    name = f"{Path(model.checkpoint).name} {'reading again' if asks else f'with {config.sampling.template}'}"
    judges = reread_tree if asks else premises_tree if _by_premises(config) else judge_tree
    with stopped_by_sigint() as stopping:
        async with open_judge(model) as engine:
            counted = CountedPolicy(engine)
            kept = ReplayPolicy(counted, config.run / ANSWERS, records.keys, stopping)

            async def judged(searched: Searched) -> dict[str, Any]:
                verdicts = await judges(searched.problem, searched.tree, kept, config.sampling, config.seed)
                return _record(searched.problem.id, name, verdicts, config)

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


def _by_premises(config: JudgeConfig) -> bool:
    return config.judge == "model" and config.sampling.template == PREMISES


def _record(problem_id: str, judge: str, judged: Judged, config: JudgeConfig) -> dict[str, Any]:
    checks = config.judge == "check"
    rates = RATES[config.check] if checks else config.rates
    return {
        "key": problem_id,
        "judge": judge,
        **({"rates": rates} if rates else {}),
        **({"local": True} if checks or _by_premises(config) else {}),
        "verdicts": [None if verdict is None else dataclasses.asdict(verdict) for verdict in judged.verdicts],
        "solutions": judged.solutions,
        "failures": dict(judged.failures),
        "example": judged.example,
        "unanswered": judged.unanswered,
        "requests": judged.requests,
        "tokens": judged.tokens,
    }


def _refuse_if_silent(records: Records, config: JudgeConfig) -> None:
    """UserError if the judge spoke about no step. To ask a judge that computes again would change nothing."""
    if config.judge != "check":
        refuse_if_all_failed(
            records, lambda record: str(record["example"]), "no judgement could be read", "fix the judge"
        )
    elif not any(entry.note[VERDICT_COUNT] for entry in records.entries()):
        raise UserError(f"the check of {config.check} has nothing to say about any of these steps; use another judge")


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
