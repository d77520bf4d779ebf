"""The whole loop by its commands, at a small size; killed at every stage, it ends with the same results."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.eval.test_tables import timeless

SIZES = {
    "data_synth.trees": ["--config", "configs/demo/trees.yaml", "--problems", "12", "--unit", "4"],
    "data_synth.judge": ["--config", "configs/demo/judge.yaml"],
    "data_synth.label": ["--config", "configs/demo/label.yaml"],
    "train.prm": ["--config", "configs/demo/prm.yaml", "--rows.batch_tokens", "600", "--checkpoint_every", "3"],
    "eval.run": [
        "--config",
        "configs/demo/eval.yaml",
        "--unit",
        "5",
        "--search.n",
        "4",
        "--benchmarks",
        "[{name: count_grid, problems: 5}, {name: fine_print, problems: 5}]",
    ],
    "eval.report": [],
}


def command(stage: str, out: Path) -> list[str]:
    folders = {
        "data_synth.trees": {"run": "trees"},
        "data_synth.judge": {"trees": "trees", "run": "judgements"},
        "data_synth.label": {"trees": "trees", "judgements": "judgements", "run": "labels"},
        "train.prm": {"dataset": "labels/dataset.parquet", "run": "prm"},
        "eval.run": {"reward_model": "prm", "run": "eval"},
        "eval.report": {"run": "."},
    }[stage]
    flags = [word for name, folder in folders.items() for word in (f"--{name}", str(out / folder))]
    return [sys.executable, "-m", stage, *SIZES[stage], *flags]


def run(stage: str, out: Path) -> None:
    done = subprocess.run(command(stage, out), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run_killed(stage: str, out: Path, when: Callable[[], bool]) -> None:
    """Start a stage and kill it as soon as `when` holds; then run it to its end."""
    process = subprocess.Popen(command(stage, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not when() and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the stage was over before it was killed"
    run(stage, out)


def has_lines(path: Path, n: int) -> bool:
    return path.exists() and path.read_bytes().count(b"\n") >= n


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_every_stage_the_results_are_the_same(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = ThreadPoolExecutor(1).submit(lambda: [run(stage, whole) for stage in SIZES])
    run_killed("data_synth.trees", killed, lambda: has_lines(killed / "trees/trees.jsonl", 4))
    run("data_synth.judge", killed)
    run("data_synth.label", killed)
    run_killed("train.prm", killed, lambda: any(killed.glob("prm/checkpoint-*/trainer_state.json")))
    run_killed("eval.run", killed, lambda: has_lines(killed / "eval/records.jsonl", 5))
    run("eval.report", killed)
    undisturbed.result()

    assert (killed / "trees/trees.jsonl").read_text() == (whole / "trees/trees.jsonl").read_text()
    assert timeless(killed / "eval/records.jsonl") == timeless(whole / "eval/records.jsonl")
    weights = [load_file(out / "prm" / "model.safetensors") for out in (whole, killed)]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    results = [json.loads((out / "results.json").read_text()) for out in (whole, killed)]
    seconds = [r.pop("seconds") for r in results]
    assert results[0] == results[1]
    assert set(seconds[0]) == {"trees", "judge", "label", "train", "run", "report"}
    check_contract(whole, results[0])

    # A second run of a finished stage does nothing.
    before = (whole / "eval" / "records.jsonl").stat().st_mtime_ns
    run("eval.run", whole)
    assert (whole / "eval" / "records.jsonl").stat().st_mtime_ns == before


def check_contract(out: Path, results: dict) -> None:  # type: ignore[type-arg]
    """Checks what other programs rely on: the run folder's files and the keys of results.json."""
    for name in ("config.yaml", "env.json", "results.json", "report.html"):
        assert (out / name).stat().st_size > 0
    assert (out / "prm" / "metrics.jsonl").exists()
    assert {"n_problems", "n_candidates", "selection", "best_of_n", "steps", "labels"} <= set(results)
    names = {"random", "majority", "weighted_majority", "prm_last", "prm_min", "prm_mean", "prm_product"}
    assert names | {"whole_solution", "oracle"} <= set(results["selection"])
    assert all({"accuracy", "ci"} <= set(row) for row in results["selection"].values())
    assert {
        "auroc", "within_problem_outcome_accuracy", "f1_correct", "f1_error", "macro_f1", "first_error_accuracy",
        "perception_error_f1",
    } <= set(results["steps"])  # fmt: skip
    assert all({"precision", "recall", "f1"} <= set(results["labels"][name]) for name in ("mc", "judge", "fused"))
