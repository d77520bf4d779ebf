"""What a step reward reads, measured in the built-in world: parts of steps are removed when the demo's reward model is
tested, and when it is trained and tested (What Are Step-Level Reward Models Rewarding, arXiv 2412.15904).

    make demo && python -m tests.perf.ablations        (about six minutes per trained row on two cores)

Each row has the AUROC of right steps against perception errors and against reasoning errors, with 95% bootstrap
intervals over problems. A derivation from a misread fact has the kind of that error. Finished work is not repeated.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from eval.step_scores.config import ImageMode, StepsConfig
from eval.steps import main as evaluate
from tests.perf.results import FOLDER, write_result
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

DEMO = Path("runs/demo")
RESAMPLES = 500


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
    "trained without words and history": Ablation(words="removed", history="removed", trained=True),
}

Known = tuple[float, str]  # a step's reward, and "right" or the kind of its error


def main() -> None:
    truth = true_verdicts()
    rows = [measured(name, ablation, truth) for name, ablation in ABLATIONS.items()]
    of = {row["ablation"]: row["perception"]["auroc"] - row["reasoning"]["auroc"] for row in rows}
    write_result("ablations", rows, {"perception_less_reasoning_without_words": (of["trained without words"], 0.0)})


def measured(name: str, ablation: Ablation, truth: dict[str, list[Verdict | None]]) -> dict[str, Any]:
    """The row of an ablation."""
    folder = FOLDER / "ablations" / name.replace(" ", "_").replace(",", "")
    model = trained(folder / "prm", ablation) if ablation.trained else DEMO / "prm"
    evaluate(
        StepsConfig(
            "synthetic", DEMO / "eval", folder / "steps", (ModelConfig(str(model)),), words=ablation.words,
            history=ablation.history, images=ablation.images,
        )
    )  # fmt: skip
    problems = by_problem(folder / "steps", truth)
    row = {"ablation": name, **{kind: of_kind(problems, kind) for kind in ("perception", "reasoning")}}
    print(row, flush=True)
    return row


def trained(folder: Path, ablation: Ablation) -> Path:
    demo = parse(PrmConfig, ["--config", "configs/demo/prm.yaml"])
    rows = replace(demo.rows, words=ablation.words, history=ablation.history)
    train(replace(demo, run=folder, dataset=DEMO / "labels/dataset.parquet", rows=rows))
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
    return list(found.values())


def of_kind(problems: list[list[Known]], kind: str) -> dict[str, Any]:
    """AUROC of right steps against errors of a kind, with its interval over problems."""
    kept = [[(reward, said == "right") for reward, said in steps if said in ("right", kind)] for steps in problems]
    rng = np.random.default_rng(0)
    drawn = [[kept[i] for i in rng.integers(0, len(kept), len(kept))] for _ in range(RESAMPLES)]
    low, high = np.nanquantile([_auroc(sample) for sample in drawn], [0.025, 0.975])
    errors = sum(not right for steps in kept for _, right in steps)
    return {"auroc": _auroc(kept), "ci": [float(low), float(high)], "errors": errors}


def _auroc(problems: list[list[tuple[float, bool]]]) -> float:
    steps = [step for of_problem in problems for step in of_problem]
    return auroc([reward for reward, _ in steps], [right for _, right in steps])


if __name__ == "__main__":
    main()
