"""Evaluate whatever gives step rewards, or stored predictions, on a benchmark of labelled steps.

    python -m eval.steps --benchmark process_bench --data DIR --reward_model runs/demo/prm --run runs/process_bench
    python -m eval.steps --config configs/eval/step_judge.yaml --data DIR --run runs/judge
    python -m eval.steps --benchmark prm_bench --data DIR --predictions FILE --run runs/prm_bench

Writes `predictions.jsonl` (see `vlprm.step_benchmarks.predictions`) and `results.json`, and prints tables.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from eval.step_scores.calibration import calibration, calibration_table, reliability_table, spread, spread_table
from eval.step_scores.config import StepsConfig
from eval.step_scores.results import FIXED, Threshold, measured_all, print_results
from eval.step_scores.rows import chosen
from eval.step_scores.shown import Shown
from vlprm.errors import ProblemError, RecordError, UserError
from vlprm.policy import all_answers
from vlprm.policy.open import folders_of, placed
from vlprm.runs.config import dump, run
from vlprm.runs.folder import CONFIG, INPUTS, fingerprint, json_object, open_run, timed, write_atomically
from vlprm.runs.journal import Records, finish, finished_records, in_units
from vlprm.runs.progress import progress
from vlprm.scoring import Scorer
from vlprm.scoring.judged import FORMS
from vlprm.scoring.open import open_scorer, with_folders
from vlprm.step_benchmarks import BENCHMARKS
from vlprm.step_benchmarks.labelled import LabelledSet, LabelledSolution, problem_of
from vlprm.step_benchmarks.predictions import Prediction, from_record, of_scores, to_record
from vlprm.step_benchmarks.stored import read_predictions

CHANGED = ("images", "words", "history")  # the parts of a model's input that a run may change


def main(config: StepsConfig) -> None:
    """Write predictions and `results.json` to the run folder, and print tables."""
    _refuse_mistakes(config)
    benchmark = BENCHMARKS[config.benchmark]
    labelled = benchmark.load(config.data)
    solutions = chosen(labelled.solutions, config.groups, config.rows)
    thresholds = [FIXED, *_other_threshold(config, solutions)]
    records = (
        _record_stored(config, labelled, solutions)
        if config.predictions
        else _record_scores(config, labelled, solutions)
    )
    finish(records)
    by_key = {record["key"]: record for record in records}
    predictions = [from_record(by_key[s.key], len(s.steps)) for s in solutions]
    results: dict[str, Any] = {"benchmark": config.benchmark}
    results |= {name: getattr(config, name) for name in CHANGED}
    results |= measured_all(benchmark, solutions, predictions, thresholds)
    probabilities, spreads = calibration(solutions, predictions), spread(solutions, predictions)
    results |= {"calibration": probabilities} if probabilities else {}
    results |= {"ensemble": spreads} if spreads else {}
    write_atomically(config.run / "results.json", json.dumps(results, indent=2) + "\n")
    print_results(results, benchmark.main)
    if probabilities:
        Console().print(calibration_table(probabilities), reliability_table(probabilities), sep="\n")
    if spreads:
        Console().print(spread_table(spreads))


def _refuse_mistakes(config: StepsConfig) -> None:
    if config.benchmark not in BENCHMARKS:
        raise UserError(f"unknown benchmark {config.benchmark!r}; known: {', '.join(BENCHMARKS)}")
    if bool(config.reward_model) == (config.predictions is not None):
        raise UserError("pass either --reward_model, which scores the solutions, or --predictions, not both")
    for name in CHANGED:
        if config.predictions is not None and (how := getattr(config, name)) != "kept":
            raise UserError(f"--{name} {how} changes the input of a reward model; remove --predictions")


def _other_threshold(config: StepsConfig, solutions: Sequence[LabelledSolution]) -> list[Threshold]:
    """The best threshold of another run. UserError if that run used another model or solutions that are measured
    here."""
    if config.threshold_from is None:
        return []
    other = config.threshold_from
    keys = {record["key"] for record in finished_records(other / "predictions.jsonl", "eval.steps")}
    found = json_object(other / "results.json")
    if found.get("benchmark") == config.benchmark and keys & {solution.key for solution in solutions}:
        raise UserError(f"{other} contains solutions that are measured here; choose the threshold on other data")
    if "threshold_for_other_data" not in found:
        raise UserError(f"{other} has no rewards to choose a threshold from; pass a run with rewards")
    if config.reward_model and _judges(yaml.safe_load((other / CONFIG).read_text())) != _judges(asdict(config)):
        raise UserError(f"{other} scored steps in another way; repeat it with the same reward_model and scorer.kind")
    own, served = _folders(config)
    prints = {fingerprint(path) for path in own} | {fingerprint(path, weights=False) for path in served}
    if not prints <= set(json_object(other / INPUTS).values()):
        names = ", ".join(model.checkpoint for model in config.reward_model)
        raise UserError(f"{other} used another model than {names}; repeat it with this model")
    return [Threshold(found["threshold_for_other_data"]["threshold"], f"best on {found['benchmark']}")]


def _judges(config: Mapping[str, Any]) -> tuple[str, list[str]]:
    """How steps are scored, and the names of served judges, which have no folder to compare."""
    scorer = config.get("scorer", {})
    kind = str(scorer.get("kind", "steps"))
    names = [model["server"]["model"] for model in config["reward_model"]] if kind in FORMS else []
    return f"{kind}, {scorer.get('decision', 'share')}", names


def _folders(config: StepsConfig) -> tuple[list[Path], list[Path]]:
    """The checkpoint folders of the models in this process, and those of served ones."""
    return folders_of(with_folders(config.reward_model, config.scorer))


def _opened(config: StepsConfig, inputs: Sequence[Path], served: Sequence[Path] = ()) -> Records:
    other = [] if config.threshold_from is None else [config.threshold_from / "results.json"]
    open_run(config.run, dump(config), 0, [*inputs, *other], served)
    return Records(config.run / "predictions.jsonl")


def _record_stored(config: StepsConfig, labelled: LabelledSet, solutions: Sequence[LabelledSolution]) -> Records:
    """Record the stored predictions of the solutions."""
    assert config.predictions is not None
    stored = read_predictions(config.predictions, BENCHMARKS[config.benchmark], labelled.solutions)
    records = _opened(config, [*labelled.files, config.predictions])
    for unit in in_units(solutions, len(solutions), records, key=lambda s: s.key):
        records.append(to_record(s.key, stored[s.key]) for s in unit)
    return records


def _record_scores(config: StepsConfig, labelled: LabelledSet, solutions: Sequence[LabelledSolution]) -> Records:
    """Score the solutions and record the predictions."""
    config = dataclasses.replace(config, reward_model=tuple(map(placed, config.reward_model)))
    shown = Shown(labelled, solutions, config.images, config.words, config.history)
    own, served = _folders(config)
    records = _opened(config, [*labelled.files, *own], served)
    with timed(config.run, "steps"):
        if units := list(in_units(solutions, config.unit, records, key=lambda s: s.key)):
            asyncio.run(_score_units(config, units, shown, records, len(solutions)))
    return records


async def _score_units(
    config: StepsConfig, units: Sequence[Sequence[LabelledSolution]], shown: Shown, records: Records, total: int
) -> None:
    async with open_scorer(config.reward_model, config.scorer) as scorer:
        with progress("solutions", total, len(records.keys)) as reached:
            for unit in units:
                rewarded = await predicted(scorer, unit, shown)
                records.append(to_record(s.key, p) for s, p in zip(unit, rewarded, strict=True))
                reached(len(records.keys))


async def predicted(scorer: Scorer, solutions: Sequence[LabelledSolution], shown: Shown) -> list[Prediction]:
    """The step rewards of each solution, or why it has none: a missing image, a question that does not fit a prompt,
    a step without a score. Solutions of one problem are asked about together."""
    of_problem: dict[str, list[LabelledSolution]] = {}
    for solution in solutions:
        of_problem.setdefault(solution.problem_id, []).append(solution)
    found = await all_answers(_of_problem(scorer, group, shown) for group in of_problem.values())
    by_key = {key: prediction for group in found for key, prediction in group.items()}
    return [by_key[solution.key] for solution in solutions]


async def _of_problem(scorer: Scorer, group: Sequence[LabelledSolution], shown: Shown) -> dict[str, Prediction]:
    try:
        problem = problem_of(group[0], shown.images_of(group[0]))
        parts = [shown.parts_of(solution) for solution in group]
        scored = await scorer.score(problem, [part for of_solution in parts for part in of_solution])
    except (RecordError, ProblemError) as error:
        return {solution.key: Prediction(no_result=error.cause) for solution in group}
    found = iter(scored.steps)
    scores = ([score for _ in of_solution for score in next(found)] for of_solution in parts)
    return {solution.key: of_scores(of_steps) for solution, of_steps in zip(group, scores, strict=True)}


if __name__ == "__main__":
    run(main, StepsConfig)
