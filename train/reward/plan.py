"""The plan of a training run: trained parameters, batches, memory per GPU, and one decoded row with its labels."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import astuple
from typing import Any

import numpy as np
import torch

from train.loop.batches import cost
from train.reward.batches import batch_rows
from train.reward.config import PrmConfig
from train.reward.data import LabelledRow
from train.reward.losses import IGNORE
from train.reward.memory import Layout, need_of, sizes_of
from train.reward.shapes import TrainingStep, step_of
from train.reward.trainer import Batches
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import part_of
from vlprm.model.reward_model import passes_of
from vlprm.scoring.memory import bytes_per_token

GIB, KIB = 1 << 30, 1 << 10
LAYOUTS = (Layout(1, False), Layout(8, False), Layout(8, True), Layout(16, True))  # a GPU, a node, two nodes
COLUMNS = ("weights", "gradients", "AdamW", "gathered", "activations", "logits", "total")
H100 = 989e12  # floating-point operations per second in bfloat16
UTILISATION = 0.4


def report(config: PrmConfig, inputs: InputBuilder, model: Any, batches: Batches) -> str:
    """The plan as text. The model is on the device `meta`; its weights become bfloat16 if the run computes in it."""
    full = _full_batch(batches, config.rows.batch_tokens)
    lines = [
        *_parameters(model, inputs),
        f"batches: {len(batches)}, {config.accumulate} per device and optimizer step",
        *_needs(config, inputs, model, full, batches),
        "",
        "The first row; after each step, its target and weight:",
        _decoded(batches[0][0], inputs),
    ]
    return "\n".join(lines)


def _full_batch(batches: Batches, budget: int) -> list[LabelledRow]:
    """The row that fills a batch most, as often as it fits. No batch of the run is larger, in whatever order the rows
    are drawn. A row over the budget is a batch of its own."""
    tokens_N = batches.index.lists("tokens")[0][np.concatenate(batches.plan)]
    times_N = np.maximum(1, budget // tokens_N)
    place = int(np.lexsort((tokens_N, times_N * tokens_N))[-1])
    starts = np.cumsum([0, *map(len, batches.plan)])
    number = int(np.searchsorted(starts, place, side="right")) - 1
    return [batches[number][place - int(starts[number])]] * int(times_N[place])


def _parameters(model: Any, inputs: InputBuilder) -> list[str]:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    counts: Counter[tuple[str, bool]] = Counter()
    for name, parameter in base.named_parameters():
        counts[part_of(name, inputs.family) or "head", parameter.requires_grad] += parameter.numel()
    return [f"{part}: {n:,} parameters, {'trained' if trained else 'frozen'}" for (part, trained), n in counts.items()]


def _needs(config: PrmConfig, inputs: InputBuilder, model: Any, rows: list[LabelledRow], batches: Batches) -> list[str]:
    """The memory per GPU of each layout and the computation, for a full batch of these rows."""
    sizes, batch = sizes_of(model, config.bits), batch_rows(rows, inputs)
    whole = shard = step_of(model, batch, config.loss, config.checkpointing, autocast=config.bfloat16)
    if config.bfloat16:
        shard = step_of(model.to(torch.bfloat16), batch, config.loss, config.checkpointing)
    table = []
    for layout in LAYOUTS:
        step, number = (shard, 2 if config.bfloat16 else 4) if layout.sharded else (whole, 4)
        need = need_of(sizes, layout, step, config.accumulate, number)
        cells = "".join(f"{size / GIB:>12.2f}" for size in astuple(need))
        table.append(f"{layout.gpus:>4}  {layout.name:<8}{cells}")
    tokens, images = len(rows[0].row.ids), rows[0].row.image_mask.count(True)
    kept = passes_of(model) * bytes_per_token(model.config.get_text_config(), 2)
    return [
        f"a full batch: {len(rows)} rows of {tokens} tokens, {images} of them of images"
        f" ({len(rows) * tokens} of {config.rows.batch_tokens} tokens)",
        "GiB per GPU, computed from shapes; CUDA, NCCL and fragmentation come on top:",
        "GPUs  sharding" + "".join(f"{column:>12}" for column in COLUMNS),
        *table,
        f"memory of the machine: each process reads {sizes.all.elements * 4 / GIB:.1f} GiB of weights, of which its GPU"
        " gets a shard, or all",
        f"KV cache: none in training; a scorer keeps {kept / KIB:.3g} KiB per token in bfloat16",
        _computation(shard, _full_batches(batches, len(rows), tokens, inputs.width)),
    ]


def _full_batches(batches: Batches, rows: int, tokens: int, width: int) -> int:
    """Number of full batches, of `rows` rows of `tokens` tokens, that cost as much as all batches of the run."""
    tokens_N = batches.index.lists("tokens")[0]
    costs = (cost(len(batch), int(tokens_N[batch].max()), width) for batch in batches.plan)
    return math.ceil(sum(costs) / cost(rows, tokens, width))


def _computation(step: TrainingStep, full: int) -> str:
    """The time of a run whose batches cost as much as `full` full ones."""
    hours, speed = step.flops * full / (UTILISATION * H100) / 3600, f"{H100 / 1e12:.0f} TFLOP/s"
    return (
        f"computation: {step.flops / 1e15:.3g} PFLOP per full batch, and {full} of them in all; at {UTILISATION:.0%} of"
        f" an H100's {speed}: {hours:.3g} h on 1 GPU, {hours / 8:.3g} h on 8, {hours / 16:.3g} h on 16"
    )


def _decoded(row: LabelledRow, inputs: InputBuilder) -> str:
    """The row's text as the model reads it, with a mark after each step."""
    pieces, start = [], 0
    for end, step in sorted((end + 1, step) for step, end in enumerate(row.row.step_ends)):
        pieces += [inputs.decode(row.row.ids[start:end], row.row.image_mask[start:end]), _mark(row, step)]
        start = end
    return "".join([*pieces, inputs.decode(row.row.ids[start:], row.row.image_mask[start:])])


def _mark(row: LabelledRow, step: int) -> Any:
    target = row.targets[step]
    return f" «{'no loss' if target == IGNORE else f'{target:.2f} x{row.weights[step]:g}'}»"
