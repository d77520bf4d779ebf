"""The memory that a training run needs on each GPU, by the number of GPUs and how the model is sharded over them.
Everything is computed from shapes (`train.reward.shapes`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from train.reward.shapes import TrainingStep

MASTER = 4  # bytes of a weight and of its gradient: float32
ADAM = 8  # two float32 moments
TEMPORARY = 4  # AdamW's steps on a GPU update all parameters at once, and need the root of all second moments


@dataclass(frozen=True)
class Layout:
    """How a model is spread over GPUs: whole on each (one GPU, DDP), or in shards (FSDP2)."""

    gpus: int
    sharded: bool

    @property
    def name(self) -> str:
        """The name in reports."""
        return "FSDP2" if self.sharded else "DDP" if self.gpus > 1 else "none"


@dataclass(frozen=True)
class Need:
    """Bytes on one GPU.

    Args:
        weights: all weights, or a shard of them.
        gradients: gradients of the trained weights.
        moments: AdamW's.
        gathered: whole layers of a sharded model while they are used, and their gradients before they are sharded.
        activations: everything else that is alive at the worst moment of a batch.
        logits: the part of the activations that is logits over the vocabulary, at most.
        total: the most at any time, which may be less than the sum.
    """

    weights: float
    gradients: float
    moments: float
    gathered: float
    activations: float
    logits: float
    total: float


@dataclass(frozen=True)
class Unit:
    """The elements of parameters that a sharded model gathers together, and how many of them are trained."""

    elements: int
    trained: int

    @classmethod
    def of(cls, parameters: Iterable[Tensor]) -> Unit:
        """The unit of some parameters."""
        listed = list(parameters)
        return cls(sum(p.numel() for p in listed), sum(p.numel() for p in listed if p.requires_grad))


@dataclass(frozen=True)
class Sizes:
    """Numbers of elements of a model's parameters.

    Args:
        stored: bytes of all weights as they are stored, on one GPU.
        all: the whole model.
        layer: its largest layer.
        embeddings: its input embeddings; nothing if the LM head shares them.
        head: its LM head.
        rest: what is in none of these, which stays gathered during a step.
    """

    stored: int
    all: Unit
    layer: Unit
    embeddings: Unit
    head: Unit
    rest: Unit


def sizes_of(model: Any, bits: int = 16) -> Sizes:
    """The sizes of a model, whose text layers may be quantised to `bits`. Its units are those of accelerate's FSDP2."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = [[*m.parameters()] for m in base.modules() if type(m).__name__ in base._no_split_modules]
    embeddings, head = [base.get_input_embeddings().weight], [*base.get_output_embeddings().parameters()]
    in_units = {id(p) for unit in (*layers, embeddings, head) for p in unit}
    tied = head[0] is embeddings[0]
    quantised = {id(p) for p in _linear_weights(base)} if bits < 16 else set()
    return Sizes(
        stored=sum(p.numel() * bits // 8 if id(p) in quantised else p.numel() * MASTER for p in base.parameters()),
        all=Unit.of(base.parameters()),
        layer=max(map(Unit.of, layers), key=lambda unit: unit.elements),
        embeddings=Unit.of([] if tied else embeddings),
        head=Unit.of(head),
        rest=Unit.of(p for p in base.parameters() if id(p) not in in_units),
    )


def _linear_weights(model: Any) -> Iterable[Tensor]:
    """The frozen weights of the text layers, which are the ones that are quantised."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and ".language_model.layers." in f".{name}" and "lora_" not in name:
            yield module.weight


def need_of(sizes: Sizes, layout: Layout, step: TrainingStep, accumulate: int, number: int) -> Need:
    """What a layout needs for a step of `accumulate` batches, computed in numbers of `number` bytes."""
    parts, trained = layout.gpus if layout.sharded else 1, sizes.all.trained
    # DDP adds gradients up in buckets of its own.
    per_gradient = MASTER * (2 if layout.gpus > 1 and not layout.sharded else 1) / parts
    weights, gradients, moments = sizes.stored / parts, trained * per_gradient, trained * ADAM / parts
    in_layers, at_end = _gathered(sizes, number) if layout.sharded else (0, 0)
    most = max(
        in_layers + step.peak(per_gradient, kept=trained if accumulate > 1 else 0),
        at_end + step.peaks[max(step.peaks)] + gradients,
        gradients + trained * TEMPORARY / parts,
    )
    return Need(
        weights,
        gradients,
        moments,
        gathered=max(in_layers, at_end),
        activations=max(step.peaks.values()),
        logits=step.logits,
        total=weights + moments + most,
    )


def _gathered(sizes: Sizes, number: int) -> tuple[int, int]:
    """Bytes of what a sharded model has gathered while layers compute, and at the end of the backward pass, where the
    embeddings get their gradient. Two layers are there at a time, because the next one is fetched early. A gradient is
    whole until its copy in float32 is added up over GPUs; its weights have been freed by then."""

    def reduced(unit: Unit) -> int:
        return unit.trained * (number + MASTER)

    layers = (sizes.rest.elements + 2 * sizes.layer.elements) * number
    head = max(sizes.head.elements * number, reduced(sizes.head))
    in_layers = layers + max(head, reduced(sizes.layer))
    at_end = sizes.rest.elements * number + max(reduced(sizes.embeddings), reduced(sizes.rest))
    return in_layers, at_end
