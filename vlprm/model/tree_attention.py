"""Attention over packed trees: a FlexAttention block mask on a GPU, a dense mask for sdpa elsewhere.

transformers' attention interface dispatches on a name in the config of each part. Lookback ratios (`looking_back`) come
from the same kernel: attention over values that are 1 for some keys and 0 for others is the share of attention on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from vlprm.errors import UserError
from vlprm.model.attention import Attention, refuse_missing_flash
from vlprm.model.packing import KeptMask, tree_mask

TREE, FLASH = "vlprm_tree", "flash_attention_2"


@dataclass(frozen=True)
class Lookback:
    """The keys to look for, true in `marked` (B, K), and per text layer the share of attention on them of each query,
    the mean over heads (B, T), in the order in which layers compute."""

    marked: Tensor
    shares: list[Tensor] = field(default_factory=list)

    def read(self, attend: Callable[..., Any], value: Tensor) -> None:
        """Add a layer's shares; `attend` computes its attention over any values."""
        with torch.no_grad():
            marks = self.marked[:, None, :, None].to(value.dtype).expand(value.shape).contiguous()
            self.shares.append(attend(marks)[0][..., 0].float().mean(-1))


_lookback: ContextVar[Lookback | None] = ContextVar("lookback", default=None)


@contextmanager
def looking_back(marked_BK: Tensor) -> Iterator[Lookback]:
    """Collect lookback ratios (Lookback Lens, arXiv 2407.07071) while a model reads a batch once."""
    found = Lookback(marked_BK)
    token = _lookback.set(found)
    try:
        yield found
    finally:
        _lookback.reset(token)


def with_lookback(attend: Callable[..., Any], value: Tensor) -> Any:
    """A text layer's attention over its values, with the lookback ratio if it is asked for."""
    if (asked := _lookback.get()) is not None:
        asked.read(attend, value)
    return attend(value)


def _forward(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any) -> Any:
    kernel = flex_attention_forward if isinstance(attention_mask, BlockMask) else sdpa_attention_forward
    return with_lookback(lambda values: kernel(module, query, key, values, attention_mask, **kwargs), value)


AttentionInterface.register(TREE, _forward)
AttentionMaskInterface.register(TREE, sdpa_mask)  # rows without branches use sdpa's own mask


def use_attention(model: Any, attention: Attention, can_pack: bool) -> None:
    """Set the attention kernels of a loaded model. Text layers that cannot read packed trees keep their own sdpa."""
    refuse_missing_flash(attention)
    names = {"flash": FLASH, "eager": "eager"}
    asked = {"vision_config": attention.vision, "text_config": attention.text}
    if changed := {part: names[kernel] for part, kernel in asked.items() if kernel in names}:
        model.set_attn_implementation(changed)
    if attention.text == "tree" and can_pack:
        model.config.get_text_config()._attn_implementation = TREE


def mask_for(model: Any, until_BT: Tensor, kept: KeptMask | None = None) -> Tensor | BlockMask:
    """The attention mask of the text layers for rows that branch or follow kept tokens (`vlprm.model.packing`), made on
    the device of its tensors. UserError with flash-attn."""
    if model.config.get_text_config()._attn_implementation == FLASH:
        raise UserError("flash-attn cannot read rows that branch; set attention.text: tree")
    return block_mask(until_BT, kept) if until_BT.is_cuda else tree_mask(until_BT, kept)


def block_mask(until_BT: Tensor, kept: KeptMask | None = None) -> BlockMask:
    """`vlprm.model.packing.tree_mask` as a FlexAttention block mask: fully masked blocks are not computed."""
    rows, length = until_BT.shape
    if kept is None:

        def sees(b: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (key <= query) & (query < until_BT[b, key])

        return _maker(until_BT.is_cuda)(sees, rows, None, length, length, device=str(until_BT.device))

    sees_BGP, group_BT = kept.sees, kept.group
    first = sees_BGP.shape[-1]

    def sees_kept(b: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (key - first).clamp(min=0)
        in_row = (own <= query) & (query < until_BT[b, own])
        return torch.where(key < first, sees_BGP[b, group_BT[b, query], key.clamp(max=first - 1)], in_row)

    return _maker(until_BT.is_cuda)(sees_kept, rows, None, length, first + length, device=str(until_BT.device))


@cache
def _maker(compiled: bool) -> Callable[..., BlockMask]:
    """`create_block_mask`, on a GPU compiled once: without a compiler it makes the whole dense mask first."""
    return torch.compile(create_block_mask) if compiled else create_block_mask
