"""The plan of a training run: trained parameters, batches, estimated memory, and one decoded row with its labels."""

from __future__ import annotations

from collections import Counter
from typing import Any

from train.reward.data import LabelledRow
from train.reward.losses import IGNORE
from train.reward.trainer import Batches
from vlprm.model.loading import Checkpoint, part_of

GB = 1 << 30
ADAM_BYTES = 8  # two float32 moments per trained parameter
# A layer (attention and MLP) stores about 16 numbers per token and unit of width for the backward pass. A rule of
# thumb; with activation checkpointing it is 1, plus 16 for a single layer.
KEPT_NUMBERS = 16


def report(checkpoint: Checkpoint, batches: Batches, accumulate: int, bfloat16: bool) -> str:
    """The plan as text."""
    first = batches[0]
    sizes = [len(row.row.ids) for row in first]
    lines = [
        *_parameters(checkpoint),
        f"batches: {len(batches)}, {accumulate} per device and optimizer step; the first has {len(first)} rows of"
        f" {min(sizes)} to {max(sizes)} tokens, {sum(row.row.image_mask.count(True) for row in first)} image tokens",
        _memory(checkpoint, max(sizes) * len(first), bfloat16),
        "",
        "The first row; after each step, its target and weight:",
        _decoded(first[0], checkpoint),
    ]
    return "\n".join(lines)


def _parameters(checkpoint: Checkpoint) -> list[str]:
    counts: Counter[tuple[str, bool]] = Counter()
    for name, parameter in checkpoint.model.named_parameters():
        counts[part_of(name, checkpoint.inputs.family) or "head", parameter.requires_grad] += parameter.numel()
    return [f"{part}: {n:,} parameters, {'trained' if trained else 'frozen'}" for (part, trained), n in counts.items()]


def _memory(checkpoint: Checkpoint, tokens: int, bfloat16: bool) -> str:
    parameters = list(checkpoint.model.parameters())
    weights = sum(p.numel() * p.element_size() for p in parameters)
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    text = checkpoint.model.config.get_text_config()
    kept = tokens * text.hidden_size * text.num_hidden_layers * KEPT_NUMBERS * (2 if bfloat16 else 4)
    total = weights + trained * (4 + ADAM_BYTES) + kept
    return (
        f"memory on one GPU: about {total / GB:.2f} GB (weights {weights / GB:.2f}, gradients and AdamW"
        f" {trained * (4 + ADAM_BYTES) / GB:.2f}, activations of the text layers {kept / GB:.2f}); FSDP2 and ZeRO-3"
        " divide the first two by the number of GPUs"
    )


def _decoded(row: LabelledRow, checkpoint: Checkpoint) -> str:
    """The row's text as the model reads it, with one mark for a run of image tokens."""
    ends = {end: step for step, end in enumerate(row.row.step_ends)}
    pieces: list[str] = []
    waiting: list[int] = []

    def flush() -> None:
        pieces.append(checkpoint.inputs.tokenizer.decode(waiting))
        waiting.clear()

    for place, (token, is_image) in enumerate(zip(row.row.ids, row.row.image_mask, strict=True)):
        if is_image:
            if not (place and row.row.image_mask[place - 1]):
                flush()
                pieces.append("<image>")
        else:
            waiting.append(token)
        if place in ends:
            flush()
            pieces.append(_mark(row, ends[place]))
    flush()
    return "".join(pieces)


def _mark(row: LabelledRow, step: int) -> Any:
    target = row.targets[step]
    return f" «{'no loss' if target == IGNORE else f'{target:.2f} x{row.weights[step]:g}'}»"
