"""Read trees within the memory of the device: a budget of tokens, kept and new, for all trees of a model together."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from typing import Any

import torch

from vlprm.model.loading import Checkpoint
from vlprm.model.reward_model import passes_of
from vlprm.scoring.kv_tree import CHUNK, MAX_TOKENS, Extension, extend
from vlprm.scoring.scored_tree import ScoredTree

log = logging.getLogger(__name__)

ON_CPU = 65_536  # tokens: on a CPU, more of them at a time are not faster
SHARE = 0.8  # share of a GPU's free memory


class TreeMemory:
    """The trees of a model whose tokens stay in memory between requests, and the number of tokens that fit: a budget
    that becomes smaller when the device runs out of memory."""

    def __init__(self, checkpoint: Checkpoint, tokens: int | None = None) -> None:
        self.checkpoint, self.tokens = checkpoint, tokens or tokens_that_fit(checkpoint.model)
        self.trees: dict[Hashable, ScoredTree] = {}  # the least recently used first

    def read(self, trees: Sequence[ScoredTree], keep: bool) -> None:
        """Read what was asked of the trees, in groups within the budget, one group after another. Other trees are
        evicted for it, the least recently used first. With `keep`, what was read stays until it is evicted.

        torch.OutOfMemoryError if one tree alone does not fit."""
        # Trees with tokens in memory come first, before they are evicted for others.
        waiting = sorted(trees, key=lambda tree: not tree.cache.kept)
        while waiting:
            group = self._group(waiting, keep)
            chosen = waiting[: len(group)]
            self._make_room(group, chosen)
            try:
                extend(self.checkpoint, group)
            except torch.OutOfMemoryError:
                if len(group) == 1 and not self._kept_besides(chosen) and not group[0].keep:
                    raise
            else:
                for tree, growth in zip(chosen, group, strict=True):
                    tree.grown()
                    if not growth.keep:
                        tree.evict()
                waiting = waiting[len(group) :]
                continue
            # Outside the handler, because its traceback would keep the failed pass in memory.
            self._shrink(group, chosen)

    def _group(self, waiting: Sequence[ScoredTree], keep: bool) -> list[Extension]:
        """The growths of the first trees, as many as fit. One that does not fit alone is not kept."""
        group: list[Extension] = []
        room = self.tokens
        for tree in waiting:
            growth = tree.growth(keep)
            room -= growth.most_tokens
            if room < 0:
                return group or [tree.growth(keep=False)]
            group.append(growth)
        return group

    def _make_room(self, group: Sequence[Extension], chosen: Sequence[ScoredTree]) -> None:
        room = self.tokens - sum(growth.most_tokens for growth in group)
        others = self._others(chosen)
        while others and sum(tree.cache.kept for tree in others) > room:
            others.pop(0).evict()

    def _shrink(self, group: Sequence[Extension], chosen: Sequence[ScoredTree]) -> None:
        used = sum(growth.most_tokens for growth in group) + self._kept_besides(chosen)
        self.tokens = max(1, min(self.tokens, used) // 2)
        log.warning("%d tokens did not fit into the memory of the device; from now on at most %d", used, self.tokens)
        for tree in (*chosen, *self._others(chosen)):
            tree.evict()

    def _kept_besides(self, chosen: Sequence[ScoredTree]) -> int:
        return sum(tree.cache.kept for tree in self._others(chosen))

    def _others(self, chosen: Sequence[ScoredTree]) -> list[ScoredTree]:
        return [tree for tree in list(self.trees.values()) if tree.cache.kept and tree not in chosen]


def tokens_that_fit(model: Any) -> int:
    """The number of tokens whose keys and values fit into the free memory of the model's GPU, beside the activations of
    one forward pass."""
    if model.device.type != "cuda":
        return ON_CPU
    free = torch.cuda.mem_get_info(model.device)[0]
    free += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    config, size = model.config.get_text_config(), model.dtype.itemsize
    kept = passes_of(model) * bytes_per_token(config, size)
    # A new token has about four states of the model's width and three of its MLP's at a time.
    passing = MAX_TOKENS * (4 * config.hidden_size + 3 * config.intermediate_size) * size
    return max(CHUNK, int((SHARE * free - passing) / kept))


def bytes_per_token(config: Any, number_size: int) -> int:
    """The bytes of a token's keys and values in all layers, by the config of the text layers."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * config.num_key_value_heads * width * number_size)
