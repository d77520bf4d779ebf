"""Measure which of two responses whatever gives step rewards, or a judge, prefers, on a benchmark of labelled pairs.

    python -m eval.preferences --benchmark vl_rewardbench --reward_model runs/demo/prm --run runs/pairs
    python -m eval.preferences --config configs/eval/pair_judge.yaml --run runs/pair_judge

A reward model scores the steps of both responses, and prefers the one with the larger aggregated reward. A judge is
asked, in the orders of the benchmark's protocol. Writes `preferences.jsonl` and `results.json`, and prints tables.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from eval.pair_scores.asked import judged, orders_of, preferences_of, rewarded
from eval.pair_scores.config import PreferencesConfig
from eval.pair_scores.results import no_result, official, position, print_results
from eval.step_scores.rows import chosen
from vlprm.errors import UserError
from vlprm.pair_benchmarks import PAIR_BENCHMARKS
from vlprm.pair_benchmarks.counting import measured
from vlprm.pair_benchmarks.pairs import Pair, PairBenchmark, PairSet, load_pairs
from vlprm.policy import all_answers
from vlprm.policy.open import folders_of, open_judge, placed
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, timed, write_atomically
from vlprm.runs.journal import Records, finish, in_units
from vlprm.runs.progress import progress
from vlprm.scoring.aggregate import AGGREGATIONS
from vlprm.scoring.open import open_scorer, with_folders

Record = dict[str, Any]


def main(config: PreferencesConfig) -> None:
    """Write preferences and `results.json` to the run folder, and print tables."""
    _refuse_mistakes(config)
    benchmark = PAIR_BENCHMARKS[config.benchmark]
    found = load_pairs(benchmark, config.data)
    pairs = chosen(found.pairs, config.groups, config.rows)
    records = _record(config, benchmark, found, pairs)
    finish(records)
    by_key = {record["key"]: record for record in records}
    results = results_of(config, benchmark, pairs, [by_key[pair.key] for pair in pairs])
    write_atomically(config.run / "results.json", json.dumps(results, indent=2) + "\n")
    print_results(results)


def _refuse_mistakes(config: PreferencesConfig) -> None:
    if config.benchmark not in PAIR_BENCHMARKS:
        raise UserError(f"unknown benchmark {config.benchmark!r}; known: {', '.join(PAIR_BENCHMARKS)}")
    if bool(config.reward_model) == (config.judge is not None):
        raise UserError("pass either --reward_model, which scores both responses, or --judge, which chooses, not both")
    if config.samples > 1 and config.judge is None:
        raise UserError("samples are answers of a judge; for a reward model set scorer.critiques, and leave it at 1")
    config.scorer.check(config.aggregation)


def results_of(
    config: PreferencesConfig, benchmark: PairBenchmark, pairs: Sequence[Pair], records: Sequence[Record]
) -> dict[str, Any]:
    """The content of `results.json`."""
    answers = [len(orders_of(benchmark, pair, config.samples, config.seed)) if config.judge else 1 for pair in pairs]
    asked = list(zip(records, pairs, answers, strict=True))
    preferences = [preferences_of(record, pair, config.aggregation, count) for record, pair, count in asked]
    none = {**no_result(records, preferences), "official_rule": benchmark.no_result_rule}
    results: dict[str, Any] = {
        "benchmark": config.benchmark,
        "pairs": len(pairs),
        "ties": sum(preference == 0.5 for of_pair in preferences for preference in of_pair),
        "no_result": none,
        "official": official(benchmark, pairs, preferences),
    }
    if config.judge:
        return results | {"position": position(pairs, records)}
    others = {
        rule: measured(benchmark, pairs, [preferences_of(record, pair, rule) for record, pair, _ in asked])
        for rule in AGGREGATIONS if rule != config.aggregation
    }  # fmt: skip
    accuracies = {rule: measures.get("accuracy") for rule, measures in others.items()}
    return results | {"aggregation": config.aggregation, "aggregations": accuracies}


def _record(config: PreferencesConfig, benchmark: PairBenchmark, found: PairSet, pairs: Sequence[Pair]) -> Records:
    """Score or judge the pairs that have no record yet."""
    judge = config.judge and placed(config.judge)
    config = dataclasses.replace(config, reward_model=tuple(map(placed, config.reward_model)), judge=judge)
    own, served = _folders(config)
    open_run(config.run, dump(config), config.seed, [*found.files, *own], served)
    records = Records(config.run / "preferences.jsonl")
    with timed(config.run, "preferences"):
        if units := list(in_units(pairs, config.unit, records, key=lambda pair: pair.key)):
            asyncio.run(_record_units(config, benchmark, found, units, records, len(pairs)))
    return records


def _folders(config: PreferencesConfig) -> tuple[list[Path], list[Path]]:
    """The folders of the models in this process, and those of served ones; a served judge has none."""
    judges = [config.judge] if config.judge and not config.judge.is_served else []
    return folders_of([*with_folders(config.reward_model, config.scorer), *judges])


async def _record_units(
    config: PreferencesConfig,
    benchmark: PairBenchmark,
    found: PairSet,
    units: Sequence[Sequence[Pair]],
    records: Records,
    total: int,
) -> None:
    async with AsyncExitStack() as opened:
        if config.judge:
            judge = await opened.enter_async_context(open_judge(config.judge))

            async def asked(pair: Pair) -> Record:
                return await judged(judge, benchmark, pair, found, config)

        else:
            scorer = await opened.enter_async_context(open_scorer(config.reward_model, config.scorer))

            async def asked(pair: Pair) -> Record:
                return await rewarded(scorer, pair, found)

        with progress("pairs", total, len(records.keys)) as reached:
            for unit in units:
                records.append(await all_answers(map(asked, unit)))
                reached(len(records.keys))


if __name__ == "__main__":
    run(main, PreferencesConfig)
