"""Curves of a training run for its page and its model card, in `curves.json`:

loss         [step, training loss] pairs
held_out     [step, loss on held-out problems] pairs
reliability  [mean predicted reward, mean target, count] of held-out steps at the last measurement, by tenths of the
             predicted reward
auroc        of the same steps: its value, a 95% interval over problems (null if it cannot be estimated), and the
             numbers of steps, wrong steps and problems
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import EvalPrediction, TrainerCallback

from train.loop.progress import METRICS_FILE
from train.reward.trainer import HeldOutSteps, held_out_metrics, held_out_steps
from vlprm.metrics import auroc, reliability
from vlprm.runs.folder import write_atomically

CURVES_FILE = "curves.json"
RESAMPLES = 300


def auroc_with_interval(steps: HeldOutSteps, problems: Sequence[str]) -> dict[str, Any]:
    """The AUROC, its interval, and its counts. `problems` has the problem of each row; the bootstrap draws whole
    problems, because the steps of one are correlated."""
    names, problem_of_row = np.unique(np.asarray(problems), return_inverse=True)
    problem_of_step = problem_of_row[steps.rows]
    steps_of = [np.flatnonzero(problem_of_step == k) for k in range(len(names))]
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    resampled = [np.concatenate([steps_of[k] for k in some]) for some in drawn]
    values = [auroc(steps.rewards[some], steps.right[some]) for some in resampled]
    values = [value for value in values if np.isfinite(value)]
    value = auroc(steps.rewards, steps.right)
    known = len(names) > 1 and np.isfinite(value) and len(values) > RESAMPLES / 2
    return {
        "value": value if np.isfinite(value) else None,
        "ci": [float(bound) for bound in np.quantile(values, [0.025, 0.975])] if known else None,
        "steps": len(steps.rewards),
        "wrong": int((~steps.right).sum()),
        "problems": len(names),
    }


class Curves(TrainerCallback):  # type: ignore[misc]
    """Measures held-out steps (the Trainer's `compute_metrics`), and writes `curves.json` after each measurement.
    `problems` has the problem of each held-out row."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = problems
        self.steps: HeldOutSteps | None = None

    def measure(self, prediction: EvalPrediction) -> dict[str, float]:
        """The metrics of held-out steps."""
        self.steps = held_out_steps(prediction)
        return held_out_metrics(prediction)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write `curves.json`. The Trainer has logged the measurement before."""
        if state.is_world_process_zero:
            self._write(Path(args.output_dir))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the curve of the loss if no problems are held out."""
        if state.is_world_process_zero and not self.problems:
            self._write(Path(args.output_dir))

    def _write(self, folder: Path) -> None:
        lines = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
        curves = {
            "loss": [[line["step"], line["loss"]] for line in lines if "loss" in line],
            "held_out": [[line["step"], line["eval_loss"]] for line in lines if "eval_loss" in line],
            "reliability": reliability(self.steps.rewards, self.steps.targets) if self.steps else [],
            "auroc": auroc_with_interval(self.steps, self.problems) if self.steps else None,
        }
        write_atomically(folder / CURVES_FILE, json.dumps(curves) + "\n")
