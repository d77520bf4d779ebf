"""Prefill rows for decoding: kept prefixes are not read again, and images with kept features are not encoded again.

Shapes: R rows, P kept tokens (padded at the left), T tokens of a row, H key heads, D the width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from vlprm.errors import UserError
from vlprm.model.loading import Checkpoint
from vlprm.model.packing import PackedRow
from vlprm.policy.kept import BLOCK, Kept, Prefix, block_keys, can_keep, features_of, find_prefix, giving


@dataclass(frozen=True)
class Prefilled:
    """Rows that have been read: their keys and values with padding at the left, the attention mask (R, T), the next
    position of each row, the logits of each row's last token (R, V), and the rows with their kept prefixes (None: what
    the row has read cannot be kept)."""

    cache: DynamicCache
    mask: Tensor
    next_position: Tensor
    logits: Tensor
    prefixes: Sequence[Prefix | None]


def prefill(checkpoint: Checkpoint, rows: Sequence[PackedRow], prompts: Sequence[int], kept: Kept) -> Prefilled:
    """Read the rows, whose prompts have these numbers of tokens. UserError if the model keeps a running state."""
    kept.drop_if_changed(checkpoint.model)
    layers = _new_cache(checkpoint.model).layers
    keeps = can_keep(layers)
    found = [find_prefix(kept, row, n) if keeps else None for row, n in zip(rows, prompts, strict=True)]
    prefixes = [prefix or Prefix(row, ()) for prefix, row in zip(found, rows, strict=True)]
    # Apart, because a new row beside one whose prefix is kept would be as much padding.
    groups = [[i for i, p in enumerate(prefixes) if bool(p.blocks) is known] for known in (False, True)]
    groups = [group for group in groups if group]
    read = [_read(checkpoint, [prefixes[i] for i in group], kept) for group in groups]
    for group, part in zip(groups, read, strict=True):
        for r, i in enumerate(group):
            if found[i] is not None:
                keep_blocks(kept, prefixes[i], rows[i].ids, part.cache, r)
    return replace(_joined(read, groups) if prefixes[groups[-1][0]].blocks else read[0], prefixes=found)


def keep_blocks(kept: Kept, prefix: Prefix, ids: Sequence[int], cache: DynamicCache, row: int) -> None:
    """Keep the blocks of these ids, which begin with the prefix's row and are the last ones of a row of the cache."""
    last = cache.layers[0].keys.shape[2] - len(ids)
    for b, key in enumerate(block_keys(kept, prefix, ids)):
        if b < len(prefix.blocks) or key in kept.blocks:
            continue
        tokens = slice(last + b * BLOCK, last + (b + 1) * BLOCK)
        block = torch.stack([t[row, :, tokens] for layer in cache.layers for t in (layer.keys, layer.values)])
        if block.nbytes <= kept.blocks.maxsize:
            kept.blocks[key] = block


def _new_cache(model: Any) -> DynamicCache:
    cache = DynamicCache(config=model.config.get_text_config())
    if not all(hasattr(layer, "batch_select_indices") for layer in cache.layers):
        raise UserError(
            f"{model.config.model_type} cannot sample several continuations of one prefix here; serve the policy"
            " (configs/server/trees.yaml)"
        )
    return cache


def _read(checkpoint: Checkpoint, prefixes: Sequence[Prefix], kept: Kept) -> Prefilled:
    model, inputs = checkpoint.model, checkpoint.inputs
    rows = [prefix.rest() for prefix in prefixes]
    images = [image for row in rows for image in row.images]
    given: Any = nullcontext()
    pixels: dict[str, Tensor] = {}
    if images and inputs.family.positions == "mrope":  # Qwen-VL: the vision tower gives one tensor for each image
        given = giving(model, features_of(kept, model, images))
        rows, pixels = [replace(row, images=()) for row in rows], {"pixel_values": torch.empty(0)}
    batch = {name: value.to(model.device) for name, value in {**inputs.batch(rows, side="left"), **pixels}.items()}
    cache = _new_cache(model)
    if any(prefix.blocks for prefix in prefixes):
        past = _Past(prefixes)
        cache.layers = [_PastLayer(past, index) for index in range(len(cache.layers))]
        batch["attention_mask"] = torch.cat([past.mask.to(model.device), batch["attention_mask"]], dim=1)
    with given:
        out = model(**batch, past_key_values=cache, use_cache=True, logits_to_keep=1)
    positions = batch["position_ids"]
    last_R = (positions.amax(dim=0) if positions.ndim == 3 else positions).amax(dim=1)
    return Prefilled(cache, batch["attention_mask"], last_R + 1, out.logits[:, -1].float(), prefixes)


class _Past:
    """The kept blocks of rows. Each distinct block is copied once for each layer, when the layer needs it."""

    def __init__(self, prefixes: Sequence[Prefix]) -> None:
        distinct = {id(block): block for prefix in prefixes for block in prefix.blocks}
        self.blocks = list(distinct.values())
        place = {key: i for i, key in enumerate(distinct)}
        longest = max(len(prefix.blocks) for prefix in prefixes)
        pads = [longest - len(prefix.blocks) for prefix in prefixes]
        places = [[0] * pad + [place[id(b)] for b in p.blocks] for pad, p in zip(pads, prefixes, strict=True)]
        self.places = torch.tensor(places, device=self.blocks[0].device)
        self.length = longest * BLOCK
        self.mask = (torch.arange(self.length) >= BLOCK * torch.tensor(pads)[:, None]).long()

    def tensor(self, index: int) -> Tensor:
        """The keys or values (R, H, P, D) of one layer; `index` counts the tensors of all layers."""
        table_NHBD = torch.stack([block[index] for block in self.blocks])
        return table_NHBD[self.places].transpose(1, 2).flatten(2, 3)


class _PastLayer(DynamicLayer):  # type: ignore[misc]
    """A layer that begins with kept keys and values."""

    def __init__(self, past: _Past, index: int) -> None:
        super().__init__()
        self.past, self.index = past, index

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Begin with the kept keys and values."""
        super().lazy_initialization(key_states, value_states)
        self.keys, self.values = self.past.tensor(2 * self.index), self.past.tensor(2 * self.index + 1)

    def get_seq_length(self) -> int:
        """Number of tokens, kept ones included."""
        return int(super().get_seq_length()) if self.is_initialized else self.past.length


def _joined(read: Sequence[Prefilled], groups: Sequence[Sequence[int]]) -> Prefilled:
    """Groups of rows as one, in the rows' order, without padding between a row's kept and new tokens."""
    order = torch.tensor([i for group in groups for i in group]).argsort().to(read[0].mask.device)
    longest = max(int(part.mask.sum(dim=1).max()) for part in read)
    # The tokens of each row in order, preceded by padding.
    shown = [part.mask.argsort(dim=1, stable=True)[:, -longest:] for part in read]
    masks = [_widened(part.mask.gather(1, at), longest, dim=1) for part, at in zip(read, shown, strict=True)]
    cache = read[0].cache
    for index in range(len(cache.layers)):
        of_groups = [part.cache.layers[index] for part in read]
        layer = DynamicLayer()
        layer.lazy_initialization(of_groups[0].keys, of_groups[0].values)
        for name in ("keys", "values"):
            parts = [
                _widened(torch.take_along_dim(getattr(of_group, name), at[:, None, :, None], dim=2), longest, dim=2)
                for of_group, at in zip(of_groups, shown, strict=True)
            ]
            setattr(layer, name, torch.cat(parts)[order])
        for part in read:  # so that one layer at a time is in memory twice
            part.cache.layers[index] = layer
    return Prefilled(
        cache,
        torch.cat(masks)[order],
        torch.cat([part.next_position for part in read])[order],
        torch.cat([part.logits for part in read])[order],
        (),
    )


def _widened(tensor: Tensor, length: int, dim: int) -> Tensor:
    """The tensor with zeros at the start of a dimension, up to this length."""
    shape = list(tensor.shape)
    shape[dim] = length - shape[dim]
    return torch.cat([tensor.new_zeros(shape), tensor], dim=dim)
