"""Evaluate a step reward model, or stored predictions, on a benchmark of labelled steps.

    python -m eval.steps --benchmark process_bench --data DIR --reward_model runs/demo/prm --run runs/process_bench
    python -m eval.steps --benchmark prm_bench --data DIR --predictions FILE --run runs/prm_bench

Writes `predictions.jsonl` (see `vlprm.step_benchmarks.predictions`) and `results.json`, and prints tables.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from eval.step_scores.config import StepsConfig
from eval.step_scores.images import Images
from eval.step_scores.results import FIXED, Threshold, measured_all, print_results
from vlprm.errors import ProblemError, RecordError, UserError
from vlprm.model.loading import Checkpoint, checkpoint_folder, placement
from vlprm.model.reward_loading import load_reward_model
from vlprm.policy.open import placed
from vlprm.runs.config import dump, run
from vlprm.runs.folder import INPUTS, fingerprint, json_object, open_run, timed, write_atomically
from vlprm.runs.journal import Records, finish, finished_records, in_units
from vlprm.runs.progress import progress
from vlprm.schema import Problem, Step
from vlprm.scoring.tree import score
from vlprm.step_benchmarks import BENCHMARKS
from vlprm.step_benchmarks.labelled import LabelledSet, LabelledSolution, problem_of
from vlprm.step_benchmarks.predictions import Prediction, from_record, of_scores, to_record
from vlprm.step_benchmarks.stored import read_predictions


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
    results = {"benchmark": config.benchmark, "images": config.images}
    results |= measured_all(benchmark, solutions, predictions, thresholds)
    write_atomically(config.run / "results.json", json.dumps(results, indent=2) + "\n")
    print_results(results, benchmark.main)


def _refuse_mistakes(config: StepsConfig) -> None:
    if config.benchmark not in BENCHMARKS:
        raise UserError(f"unknown benchmark {config.benchmark!r}; known: {', '.join(BENCHMARKS)}")
    if (config.reward_model is None) == (config.predictions is None):
        raise UserError("pass either --reward_model, which scores the solutions, or --predictions, not both")
    if config.reward_model is not None and config.reward_model.is_served:
        raise UserError("eval.steps scores in this process; remove reward_model.server")
    if config.predictions is not None and config.images != "kept":
        raise UserError(f"--images {config.images} changes the input of a reward model; remove --predictions")


def chosen(solutions: Sequence[LabelledSolution], groups: Sequence[str], rows: int) -> list[LabelledSolution]:
    """The first `rows` solutions (0: all) of the groups (none: all), taken in turn; in the benchmark's order."""
    known = dict.fromkeys(solution.group for solution in solutions)
    if unknown := set(groups) - set(known):
        raise UserError(f"unknown group {min(unknown)!r}; the data has {', '.join(known)}")
    seen: Counter[str] = Counter()
    turns = []
    for i, solution in enumerate(solutions):
        if not groups or solution.group in groups:
            turns.append((seen[solution.group], i))
            seen[solution.group] += 1
    return [solutions[i] for i in sorted(i for _, i in sorted(turns)[: rows or None])]


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
    if config.reward_model is not None:
        known = json_object(other / INPUTS).values()
        if fingerprint(checkpoint_folder(config.reward_model.checkpoint)) not in known:
            raise UserError(
                f"{other} used another model than {config.reward_model.checkpoint}; repeat it with this model"
            )
    return [Threshold(found["threshold_for_other_data"]["threshold"], f"best on {found['benchmark']}")]


def _opened(config: StepsConfig, inputs: Sequence[Path]) -> Records:
    other = [] if config.threshold_from is None else [config.threshold_from / "results.json"]
    open_run(config.run, dump(config), 0, [*inputs, *other])
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
    """Score the solutions with the checkpoint and record the predictions."""
    assert config.reward_model is not None
    model = placed(config.reward_model)
    images = Images(labelled, solutions, config.images)
    config = dataclasses.replace(config, reward_model=model)
    records = _opened(config, [*labelled.files, checkpoint_folder(model.checkpoint)])
    with timed(config.run, "steps"):
        if units := list(in_units(solutions, config.unit, records, key=lambda s: s.key)):
            checkpoint = load_reward_model(model.checkpoint, *placement(model.device, model.dtype))
            with progress("solutions", len(solutions), len(records.keys)) as reached:
                for unit in units:
                    rewarded = predicted(checkpoint, unit, images)
                    records.append(to_record(s.key, p) for s, p in zip(unit, rewarded, strict=True))
                    reached(len(records.keys))
    return records


def predicted(checkpoint: Checkpoint, solutions: Sequence[LabelledSolution], images: Images) -> list[Prediction]:
    """The step rewards of each solution, or why it has none: a missing image, a question that does not fit a prompt,
    an unreadable step."""
    found: dict[str, Prediction] = {}
    shown: list[tuple[Problem, Sequence[Step]]] = []
    keys = []
    for solution in solutions:
        try:
            problem = problem_of(solution, images.of(solution))
            checkpoint.inputs.prompt(problem)
        except (RecordError, ProblemError) as error:
            cause = error.cause if isinstance(error, RecordError) else error.failure
            found[solution.key] = Prediction(no_result=cause)
            continue
        keys.append(solution.key)
        shown.append((problem, images.steps_of(solution)))
    for key, rewards in zip(keys, score(checkpoint, shown), strict=True):
        found[key] = of_scores(rewards)
    return [found[solution.key] for solution in solutions]


if __name__ == "__main__":
    run(main, StepsConfig)
