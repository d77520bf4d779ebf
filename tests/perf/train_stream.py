"""Training on 1,000, 10,000 and 100,000 rows: memory, time to the first step, and how long the device waits for data.

    python -m tests.perf.train_stream

Each size is trained for some steps in a process of its own, twice: the second run finds the index that the first one
stored. The backbone is a tiny Qwen2.5-VL, whose steps are much faster than a real one's, so that data is short. Memory
is the peak of the training process, and of the largest of its data-loader processes, which counts the pages that they
share.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

SIZES, STEPS, WORKERS, SIDE = (1_000, 10_000, 100_000), 60, 2, 112
WORDS = [f"{c}{v}{d}" for c in "bdklmnrst" for v in "aeiou" for d in "nrst"]


def main() -> None:
    from tests.perf.results import write_result

    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    sizes = parser.parse_args().sizes
    folder = Path(tempfile.mkdtemp(prefix="train_stream-"))
    try:
        _in_a_process(write_backbone, folder)
        rows = [row for size in sizes for row in measured(folder, size)]
    finally:
        shutil.rmtree(folder)
    peaks = {size: max(max(r["peak_mb"], r["worker_peak_mb"]) for r in rows if r["rows"] == size) for size in sizes}
    headline = {
        "peak_most_over_least": (peaks[max(sizes)] / peaks[min(sizes)], 1.2),
        "first_step_seconds": (max(row["first_step_s"] for row in rows if row["index"] == "stored"), 60.0),
        "waiting": (max(row["waiting"] for row in rows), 0.05),
    }
    write_result("train_stream", rows, headline)


def measured(folder: Path, size: int) -> list[dict[str, Any]]:
    _in_a_process(write_rows, folder, size)
    rows = []
    for index in ("new", "stored"):
        rows.append({"rows": size, "index": index, **_in_a_process(trained, folder)})
        print(rows[-1], flush=True)
    shutil.rmtree(folder / "run")
    return rows


def write_backbone(folder: Path) -> None:
    import transformers as hf

    from tests.tiny_backbones import QWEN2_TEXT, QWEN_TOWER, qwen2_processor, write_qwen

    processor = qwen2_processor(hf.Qwen2_5_VLProcessor, [" ".join(WORDS)])
    vision = {**QWEN_TOWER, "patch_size": 14, "fullatt_block_indexes": [1]}
    write_qwen(folder / "backbone", hf.Qwen2_5_VLForConditionalGeneration, processor, QWEN2_TEXT, vision)


def write_rows(folder: Path, size: int) -> None:
    from vlprm.data.dataset import write_dataset

    write_dataset(folder / "d.parquet", _rows(size))


def _rows(size: int) -> Iterator[dict[str, Any]]:
    """Trees of two solutions that share their first step, over an image of noise."""
    import numpy as np
    from PIL import Image

    from vlprm.data.dataset import tree_row
    from vlprm.schema import Problem, Step, StepLabel, StepTree, TreeNode

    for i in range(size):
        rng = random.Random(i)
        pixels = np.random.default_rng(i).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG")
        problem = Problem(f"problem {i}", "bench", f"How many {i}?", (file.getvalue(),), "1", "integer")
        nodes = [
            TreeNode(
                Step("reasoning", "[reasoning] " + " ".join(rng.choices(WORDS, k=rng.randrange(8, 40)))), parent,
                StepLabel(target=float(rng.random() < 0.7), rule="bayes"),
            )
            for parent in (-1, 0, 1, 0, 3)
        ]  # fmt: skip
        tree = StepTree(problem.id, tuple(nodes), ((2, "1"), (4, "2")))
        yield tree_row(problem, tree, [True, False], {"rule": "bayes"})


def trained(folder: Path) -> dict[str, Any]:
    """Some steps, from the index on."""
    from transformers import TrainerCallback

    from train.prm import make_trainer, new_model
    from train.reward.config import PrmConfig, RowsConfig
    from train.reward.planning import split_rows

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Times of the starts and ends of steps; a batch is waited for in between."""

        def __init__(self) -> None:
            self.begun: list[float] = []
            self.ended: list[float] = []

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.begun.append(time.perf_counter())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.ended.append(time.perf_counter())

    run = folder / "run"
    run.mkdir(exist_ok=True)
    rows = RowsConfig(batch_tokens=4096)
    config = PrmConfig(folder / "d.parquet", run, str(folder / "backbone"), rows=rows, held_out=0.01, workers=WORKERS)
    checkpoint, clock = new_model(config), Clock()
    started = time.perf_counter()
    trainer = make_trainer(config, checkpoint, *split_rows(config, checkpoint.inputs))
    trainer.add_callback(clock)
    trainer.args.max_steps, trainer.args.eval_strategy, trainer.args.save_strategy = STEPS, "no", "no"
    trainer.train()
    waits = [begun - ended for begun, ended in zip(clock.begun[1:], clock.ended, strict=False)]
    return {
        "first_step_s": round(clock.ended[0] - started, 1),
        "waiting": round(sum(waits) / (clock.ended[-1] - clock.ended[0]), 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "worker_peak_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }


def _in_a_process(work: Any, *args: Any) -> Any:
    """Call in a new interpreter, so that the peak is its own. This one imports nothing heavy: a process starts with
    the peak of the one that started it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


if __name__ == "__main__":
    main()
