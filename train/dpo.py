"""Train a policy on pairs of next steps: step-wise DPO on packed trees.

    python -m train.dpo --config configs/policy/step_dpo.yaml
    accelerate launch --config_file configs/accelerate/fsdp2.yaml -m train.dpo --config configs/policy/step_dpo.yaml

The reference is the policy before training; its log-probabilities are computed once. The same command resumes a killed
run from its last checkpoint, and reaches the weights of an uninterrupted run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from accelerate import PartialState
from accelerate.utils import gather_object

from train.policy.config import DpoConfig
from train.policy.fit import Task, train_policy
from train.policy.losses import dpo_loss
from train.policy.pair_rows import PairExample, example_size, pair_batch, pair_example, step_log_probabilities
from train.policy.pairs import read_pairs
from vlprm.errors import UserError
from vlprm.model.loading import Checkpoint
from vlprm.runs.config import run
from vlprm.runs.folder import json_object, write_atomically

log = logging.getLogger(__name__)

REFERENCE = "reference.json"  # log-probabilities of the compared steps under the policy before training


def main(config: DpoConfig) -> None:
    """Run `vlprm dpo`."""
    train_policy(config, "train.dpo", [config.pairs], partial(prepare, config))


def prepare(config: DpoConfig, checkpoint: Checkpoint) -> Task[PairExample]:
    """The pairs with their reference. Trees with a path longer than the policy's context are left out and counted."""
    inputs = checkpoint.inputs
    examples = [pair_example(tree) for tree in read_pairs(config.pairs)]
    sizes = [example_size(example, inputs) for example in examples]
    fitting = [k for k, (_, longest) in enumerate(sizes) if longest <= inputs.context]
    if not fitting:
        raise UserError(f"all {len(examples)} trees of {config.pairs} are longer than the policy reads; shrink images")
    kept = with_reference(config, [examples[k] for k in fitting], checkpoint)
    pairs = sum(len(example.tree.pairs) for example in kept)
    log.info("%d pairs in %d trees", pairs, len(kept))
    return Task(
        examples=kept,
        sizes=[sizes[k][0] for k in fitting],
        batch=partial(pair_batch, inputs=inputs),
        loss=partial(dpo_loss, beta=config.beta, nll=config.nll),
        left_out={"pairs": pairs, "trees_left_out": len(examples) - len(kept)},
    )


def with_reference(config: DpoConfig, examples: Sequence[PairExample], checkpoint: Checkpoint) -> list[PairExample]:
    """The examples with their reference: that of the run folder if it has one, or else computed now."""
    path, process = config.run / REFERENCE, PartialState()
    known = json_object(path).get("log_p")
    if known is None:
        own = examples[process.process_index :: process.num_processes]
        checkpoint.model.to(process.device)
        found = step_log_probabilities(own, checkpoint, config.batch_tokens, config.bfloat16)
        by_process = gather_object([found])
        known = [by_process[k % process.num_processes][k // process.num_processes] for k in range(len(examples))]
        if process.is_main_process:
            write_atomically(path, json.dumps({"log_p": known}))
    return [replace(one, reference=tuple(of_one)) for one, of_one in zip(examples, known, strict=True)]


if __name__ == "__main__":
    run(main, DpoConfig)
