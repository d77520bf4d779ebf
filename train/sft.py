"""Train a policy on right solutions, from search trees, a pool, or the drawn tasks' own solvers.

    python -m train.sft --config configs/policy/cold_start.yaml
    accelerate launch --config_file configs/accelerate/fsdp2.yaml -m train.sft --config configs/policy/cold_start.yaml

The same command resumes a killed run from its last checkpoint, and reaches the weights of an uninterrupted run.
"""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial

from train.policy.config import SftConfig
from train.policy.fit import Task, train_policy
from train.policy.losses import sft_loss
from train.policy.sft_rows import examples_of, sft_batch, sft_row
from train.policy.solutions import TaughtProblem, source_files, taught_problems
from vlprm.errors import UserError
from vlprm.model.loading import Checkpoint
from vlprm.runs.config import run

log = logging.getLogger(__name__)


def main(config: SftConfig) -> None:
    """Run `vlprm sft`."""
    train_policy(config, "train.sft", source_files(config), partial(prepare, config))


def prepare(config: SftConfig, checkpoint: Checkpoint) -> Task[TaughtProblem]:
    """The solutions as rows. Rows without a learnt step, or longer than the policy's context, are left out and
    counted."""
    inputs, counts = checkpoint.inputs, Counter[str]()
    examples = examples_of(taught_problems(config, counts), inputs)
    kept, sizes = [], []
    for example in examples:
        row = sft_row(example, inputs)
        if row.longest > inputs.context:
            counts["rows_too_long"] += 1
        elif not row.trained:
            counts["rows_without_learnt_steps"] += 1
        else:
            kept.append(example)
            sizes.append(len(row.row.ids))
    if not kept:
        raise UserError(f"none of {len(examples)} rows can be learnt ({dict(counts)}); shrink images, or label more")
    log.info("%d solutions of %d problems", sum(len(one.solutions) for one in kept), len(kept))
    return Task(kept, sizes, partial(sft_batch, inputs=inputs), sft_loss, counts)


if __name__ == "__main__":
    run(main, SftConfig)
