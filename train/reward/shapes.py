"""What a training step needs, computed from shapes: the step runs on the device `meta`, where tensors have no data, and
the memory that is alive is counted tensor by tensor.

Small integer tensors of the batch (ids, image sizes, places of steps) stay real, because the shapes of others depend on
their values.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry
from transformers import AttentionInterface, AttentionMaskInterface

from train.loop.batches import model_inputs
from train.reward.batches import NOT_INPUTS
from train.reward.config import LossConfig
from train.reward.losses import training_loss
from vlprm.model.tree_attention import with_lookback

ATTENTION = "vlprm_shapes"


@dataclass(frozen=True)
class TrainingStep:
    """A training step on one device, without the memory of weights, gradients and moments.

    Args:
        peaks: for each number of gradient elements that are there at a time, the most bytes that are alive then.
        logits: the most bytes of logits over the vocabulary at a time.
        flops: floating-point operations of the forward and the backward pass.
    """

    peaks: dict[int, int]
    logits: int
    flops: float

    def peak(self, gradient_bytes: float, kept: int = 0) -> float:
        """The most bytes at a time, gradients included. A gradient element has `gradient_bytes`; `kept` elements are
        there from the start, from earlier batches of the step."""
        return max(alive + max(elements, kept) * gradient_bytes for elements, alive in self.peaks.items())


def step_of(
    model: Any, batch: dict[str, Any], loss: LossConfig, recomputes: bool = False, autocast: bool = False
) -> TrainingStep:
    """A training step of a model on `meta` with a batch of `train.reward.batches.batch_rows`. With `recomputes`, layers
    compute their activations again in the backward pass; with `autocast`, matrix products are in bfloat16 (a model
    whose weights are bfloat16 needs none)."""
    if recomputes:  # the backward pass runs outside the modes of the forward pass
        modes = {"context_fn": lambda: (nullcontext(), _Products(autocast, keeps=False))}
        model.activation_checkpointing_enable({"use_reentrant": False, **modes})
    inputs = {  # FlexAttention's mask is small
        name: value.to("meta", model.dtype) if value.is_floating_point() else value
        for name, value in model_inputs(batch, NOT_INPUTS).items()
        if name != "until"
    }
    memory = _Memory(model, inputs)
    hooks = [p.register_post_accumulate_grad_hook(memory.reduced) for p in model.parameters() if p.requires_grad]
    model.train()
    products = _Products(autocast)
    with _fused(model, memory), products, memory:
        output = model(**inputs)
        value = training_loss(output, batch, batch["totals"], loss)
        products.copies.clear()  # those that the backward pass needs stay alive
        value.backward()  # type: ignore[no-untyped-call]
    for hook in hooks:
        hook.remove()
    return TrainingStep(memory.peaks, memory.most_logits, memory.flops)


# --- counting


class _Memory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that operators made and that are alive."""

    def __init__(self, model: Any, inputs: dict[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.vocabulary = model.config.get_text_config().vocab_size
        given = [*model.parameters(), *model.buffers(), *inputs.values()]
        self.storages = {t.untyped_storage()._cdata for t in given}
        self.alive = sum(value.nbytes for value in inputs.values())
        self.logits, self.most_logits, self.flops, self.gradients = 0, 0, 0.0, 0
        self.peaks = {0: self.alive}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and not (args[0].is_meta or args[0].is_floating_point()):
            return func(*args, **{**kwargs, "device": args[0].device})  # ids and masks that a model moves stay real
        if any(isinstance(t, Tensor) and t.is_meta for t in tree_leaves((args, kwargs))):
            args, kwargs = tree_map(_on_meta, (_numbered(func, args), kwargs))
        made = func(*args, **kwargs)
        if (packet := func._overloadpacket) in flop_registry:
            self.flops += flop_registry[packet](*args, **kwargs, out_val=made)
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                self.made(tensor)
        return made

    def made(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is freed."""
        storage = tensor.untyped_storage()
        if storage._cdata in self.storages:
            return
        self.storages.add(storage._cdata)
        size, of_logits = storage.nbytes(), tensor.dim() > 1 and tensor.shape[-1] == self.vocabulary
        weakref.finalize(storage, self.freed, storage._cdata, size, of_logits)
        self.alive += size
        self.logits += size if of_logits else 0
        self.most_logits = max(self.most_logits, self.logits)
        self.peaks[self.gradients] = max(self.alive, self.peaks[self.gradients])

    def freed(self, storage: int, size: int, of_logits: bool) -> None:
        """The end of a storage."""
        self.storages.discard(storage)
        self.alive -= size
        self.logits -= size if of_logits else 0

    def reduced(self, parameter: Tensor) -> None:
        """A parameter's gradient is there, and leaves for the optimizer's gradients, which are not counted here."""
        self.gradients += parameter.numel()
        parameter.grad = None
        self.peaks[self.gradients] = self.alive


def _on_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) and not value.is_meta else value


def _numbered(func: Any, args: Sequence[Any]) -> Sequence[Any]:
    """Arguments of an indexing operator with real masks as indices, whose number decides the shape."""
    if func._overloadpacket not in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_):
        return args
    indices: list[Tensor | None] = []
    for index in args[1]:
        is_mask = index is not None and index.dtype == torch.bool and not index.is_meta
        indices += index.nonzero(as_tuple=True) if is_mask else [index]
    return [args[0], indices, *args[2:]]


# --- kernels


class _Attention(torch.autograd.Function):
    """Attention by a fused kernel (FlexAttention, flash-attn, sdpa's): queries, keys, values, the output and a number
    per query are kept for the backward pass, and no matrix of tokens by tokens."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, memory: _Memory, share: float) -> Tensor:
        out = query.new_empty((*query.shape[:-1], value.shape[-1]))
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.memory, ctx.flops = memory, share * 2 * query.numel() * key.shape[-2] * 2
        memory.flops += ctx.flops
        return out

    @staticmethod
    def backward(ctx: Any, *of_out: Tensor) -> Any:
        query, key, value, *_ = ctx.saved_tensors
        ctx.memory.flops += 2.5 * ctx.flops  # five products, one of them again
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None, None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    return None


@contextmanager
def _fused(model: Any, memory: _Memory) -> Iterator[None]:
    """The model's attention by kernels that have no implementation on `meta`."""

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **given: Any) -> tuple[Tensor, None]:
        causal = getattr(module, "is_causal", False)

        def over(values: Tensor) -> tuple[Tensor, None]:
            out: Tensor = _Attention.apply(query, key, values, memory, 0.5 if causal else 1.0)
            return out.transpose(1, 2), None

        return with_lookback(over, value) if causal else over(value)

    AttentionInterface.register(ATTENTION, attend)
    AttentionMaskInterface.register(ATTENTION, _no_mask)
    parts = [model.config.get_text_config(), model.config.vision_config]
    before = [part._attn_implementation for part in parts]
    for part in parts:
        part._attn_implementation = ATTENTION
    yield
    for part, name in zip(parts, before, strict=True):
        part._attn_implementation = name


class _Products(TorchFunctionMode):
    """What torch.autocast does, if it is `on`: it knows no device `meta`. Matrix products are in bfloat16; there is one
    copy of each trained weight until the end of the forward pass."""

    OPERATORS = (F.linear, F.conv2d, F.conv3d, torch.matmul, torch.bmm, Tensor.matmul, _Attention.apply)

    def __init__(self, on: bool, keeps: bool = True) -> None:
        super().__init__()
        self.on, self.keeps = on, keeps
        self.copies: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.on and func in self.OPERATORS:
            args, kwargs = tree_map(self._cast, (args, kwargs))
        return func(*args, **kwargs)

    def _cast(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not (self.keeps and value.is_leaf and value.requires_grad):
            return value.to(torch.bfloat16)
        if id(value) not in self.copies:
            self.copies[id(value)] = value.to(torch.bfloat16)
        return self.copies[id(value)]
