"""What a step reward reads, measured in the built-in world: parts of steps are removed when the demo's reward model is
tested, and when it is trained and tested (What Are Step-Level Reward Models Rewarding, arXiv 2412.15904).

    make demo && python -m tests.perf.ablations        (about an hour on a core)

Each row has the mean AUROC, over three seeds, of right steps against perception errors and against reasoning errors,
with 95% bootstrap intervals over seeds and problems. A derivation from a misread fact has the kind of that error.
Finished work is not repeated.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from eval.step_scores.config import ImageMode, StepsConfig
from eval.steps import main as evaluate
from tests.perf.datasets import DEMO, OF_DEMO
from tests.perf.results import FOLDER, Effect, write_result
from tests.perf.worlds import reward_model
from train.prm import main as train
from train.reward.config import PrmConfig
from vlprm.data.ablation import History, Words
from vlprm.metrics import auroc
from vlprm.runs.config import parse
from vlprm.runs.journal import read_records
from vlprm.runs.pools import stored_pools
from vlprm.schema import Step, Verdict
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS, problem_by_id

RESAMPLES, SEEDS = 300, 3


@dataclass(frozen=True)
class Ablation:
    """What is removed when a model is tested and, if `trained`, also when it is trained."""

    words: Words = "kept"
    history: History = "kept"
    images: ImageMode = "kept"
    trained: bool = False


ABLATIONS = {
    "all is read": Ablation(),
    "no words": Ablation(words="removed"),
    "words alone": Ablation(words="only"),
    "no history": Ablation(history="removed"),
    "no words, no history": Ablation(words="removed", history="removed"),
    "no images": Ablation(images="removed"),
    "trained without words": Ablation(words="removed", trained=True),
    "trained on words alone": Ablation(words="only", trained=True),
    "trained without history": Ablation(history="removed", trained=True),
    "trained without images": Ablation(images="removed", trained=True),
    "trained without words and history": Ablation(words="removed", history="removed", trained=True),
}

Known = tuple[float, str]  # a step's reward, and "right" or the kind of its error
Steps = list[tuple[float, bool]]  # a reward and whether the step is right, of a problem's steps
KnownRuns, Runs = list[list[list[Known]]], list[list[Steps]]  # by seed and problem


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = range(parser.parse_args().seeds)
    truth = true_verdicts()
    runs, rows = {}, []
    for name, ablation in ABLATIONS.items():
        runs[name] = [rewarded(name, ablation, truth, seed) for seed in seeds]
        rows.append(row_of(name, runs[name]))
    of = {row["ablation"]: row["perception"]["auroc"] - row["reasoning"]["auroc"] for row in rows}
    headline = {"perception_less_reasoning_without_words": (of["trained without words"], 0.0)}
    write_result("ablations", rows, headline, effects(runs))


def effects(runs: dict[str, KnownRuns]) -> dict[str, Effect]:
    """What the claims compare: the AUROC of right steps against all errors where all is read, less that where
    something is removed."""
    whole, *removed = ((name, _kept(of)) for name, of in runs.items())
    return {f"all less {name}": _less(whole[1], steps) for name, steps in removed}


def _less(whole: Runs, removed: Runs) -> Effect:
    def less(seeds: Sequence[int], problems: Sequence[int]) -> float:
        return _auroc(whole, seeds, problems) - _auroc(removed, seeds, problems)

    seeds, problems = len(whole), len(whole[0])
    value = less(range(seeds), range(problems))
    return Effect(value, *_interval(whole, less), "AUROC", problems, seeds)


def rewarded(name: str, ablation: Ablation, truth: dict[str, list[Verdict | None]], seed: int) -> list[list[Known]]:
    """The rewards of an ablation's steps, by problem."""
    folder = FOLDER / "ablations" / name.replace(" ", "_").replace(",", "") / str(seed)
    model = trained(folder / "prm", ablation, seed) if ablation.trained else reward_model("stranger", seed)
    evaluate(
        StepsConfig(
            "synthetic", DEMO / "eval", folder / "steps", (ModelConfig(str(model)),), words=ablation.words,
            history=ablation.history, images=ablation.images,
        )
    )  # fmt: skip
    return by_problem(folder / "steps", truth)


def row_of(name: str, runs: KnownRuns) -> dict[str, Any]:
    """The row of an ablation."""
    row = {"ablation": name, **{kind: of_kind(runs, kind) for kind in ("perception", "reasoning")}}
    print(row, flush=True)
    return row


def trained(folder: Path, ablation: Ablation, seed: int) -> Path:
    demo = parse(PrmConfig, ["--config", "configs/demo/prm.yaml"])
    assert ablation.images != "swapped"
    rows = replace(demo.rows, words=ablation.words, history=ablation.history, images=ablation.images)
    train(replace(demo, run=folder, seed=demo.seed + seed, dataset=OF_DEMO, rows=rows))
    return folder


@cache
def true_verdicts() -> dict[str, list[Verdict | None]]:
    """The ground truth of the steps of each candidate, by the key that eval.steps gives it."""
    found = {}
    for problem_id, pool in stored_pools(DEMO / "eval"):
        problem = problem_by_id(problem_id, TASKS, drawn=False)
        for i, solution in enumerate(pool):
            steps: tuple[Step, ...] = solution.steps
            found[f"{problem_id}/{i}"] = TASKS[problem.task].verdicts(problem, steps)
    return found


def by_problem(run: Path, truth: dict[str, list[Verdict | None]]) -> list[list[Known]]:
    """The reward and the true kind of each step that has both, by problem."""
    found: dict[str, list[Known]] = defaultdict(list)
    for record in read_records(run / "predictions.jsonl"):
        verdicts = truth[record["key"]]
        for reward, verdict in zip(record.get("rewards") or [None] * len(verdicts), verdicts, strict=True):
            if reward is not None and verdict is not None:
                found[record["key"].rpartition("/")[0]].append((reward, verdict.error_kind or "right"))
    return [found[problem] for problem in sorted(found)]


def of_kind(runs: KnownRuns, kind: str) -> dict[str, Any]:
    """AUROC of right steps against errors of a kind, with its interval."""
    kept = _kept(runs, kind)
    errors = sum(not right for steps in kept[0] for _, right in steps)
    value = _auroc(kept, range(len(kept)), range(len(kept[0])))
    return {"auroc": value, "ci": _interval(kept, partial(_auroc, kept)), "errors": errors}


def _kept(runs: KnownRuns, kind: str = "") -> Runs:
    """The right steps and those with errors of a kind, or of any."""
    return [
        [[(r, said == "right") for r, said in steps if not kind or said in ("right", kind)] for steps in problems]
        for problems in runs
    ]


def _interval(runs: Runs, measure: Callable[[Sequence[int], Sequence[int]], float]) -> tuple[float, float]:
    """The 95% bootstrap interval of a measure of drawn seeds and problems."""
    seeds, problems = len(runs), len(runs[0])
    rng = np.random.default_rng(0)
    values = [measure(rng.integers(0, seeds, seeds), rng.integers(0, problems, problems)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def _auroc(runs: Runs, seeds: Sequence[int], problems: Sequence[int]) -> float:
    """The mean AUROC of the steps of these problems over these seeds."""
    drawn = ([step for i in problems for step in runs[seed][i]] for seed in seeds)
    return fmean(auroc([reward for reward, _ in steps], [right for _, right in steps]) for steps in drawn)


if __name__ == "__main__":
    main()
