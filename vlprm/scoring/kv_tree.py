"""Incremental scoring of step trees with a KV cache: each token is computed once. A new step costs only its own tokens,
and all candidates of a problem share the image and the prompt.

A `KVTree` holds what has been read of one problem; `extend` grows many trees at once. New nodes are laid out as in
`vlprm.model.packing`; a node attends to the kept tokens of its ancestors only. `vlprm.scoring.memory` bounds the tokens
that are kept and new at a time.

Shapes: B trees, S steps, T new tokens, P kept tokens, R kept states (one per kept node with new children), G groups of
new tokens below the same kept node, D the width of a state or of an attention head, H key heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from vlprm.model.loading import Checkpoint
from vlprm.model.packing import KeptMask, Node, PackedRow, Positions, consecutive, depth_first, lay_out, padded_batches
from vlprm.model.reward_model import passes_of, step_scores
from vlprm.model.tree_attention import mask_for
from vlprm.schema import StepScore, with_ancestors

MAX_TOKENS = 16_384  # new tokens per forward pass, including padding
# New tokens of one tree per forward pass. Attention between siblings is computed and then masked, so large chunks waste
# compute; small ones pay the overhead of a pass more often.
CHUNK = 1024
Layer = tuple[Tensor, Tensor]  # keys and values (H, P, D) of one layer


@dataclass
class KVTree:
    """The tokens read for one problem. Per node: its parent (-1: none), its number of tokens, the next position, its
    last hidden state (while its tokens are kept) and its score, if it has one. Per kept token: its node (`owners`),
    whether it is an image token (`shown`), and the keys and values of each layer. All tensors own their storage, so
    that nothing else stays in memory with them."""

    parents: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    next_position: list[int] = field(default_factory=list)
    states: dict[int, Tensor] = field(default_factory=dict)
    scores: dict[int, StepScore] = field(default_factory=dict)
    owners: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    shown: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    layers: list[Layer] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """Number of kept tokens."""
        return len(self.owners)

    def keep(self, nodes: Iterable[int]) -> None:
        """Drop the tokens of all nodes except these and their ancestors. Scores stay."""
        stays = with_ancestors(nodes, self.parents)
        if stays.issuperset(self.states):
            return
        index = _tokens_of(stays, self.owners, len(self.parents))
        self.owners, self.shown = self.owners[index], self.shown[index]
        self.layers = [(keys[:, index], values[:, index]) for keys, values in self.layers]
        self.states = {node: state for node, state in self.states.items() if node in stays}


@dataclass(frozen=True)
class Extension:
    """Nodes to read below those of a tree, numbered after its own. A parent is a node whose tokens are kept, an earlier
    new node, or -1 for a prompt. With `keep`, the tokens stay in the cache for later extensions."""

    tree: KVTree
    nodes: Sequence[Node]
    keep: bool = True

    @property
    def most_tokens(self) -> int:
        """The largest number of tokens that are kept and new at a time while the nodes are read."""
        return max((part.tokens for part in _parts(self)), default=self.tree.kept)


@torch.inference_mode()
def extend(checkpoint: Checkpoint, growths: Sequence[Extension]) -> None:
    """Read the nodes and store their scores in the trees. UserError if the model returns values that are not
    finite."""
    waiting = [_parts(growth) for growth in growths]
    while any(waiting):
        parts = [of_tree.pop(0) for of_tree in waiting if of_tree]
        sizes = [sum(len(node.segment.ids) for node in part.nodes) for part in parts]
        for group in padded_batches(sizes, MAX_TOKENS):
            _forward(checkpoint, [parts[i] for i in group])


@dataclass(frozen=True)
class _Part:
    """Nodes that are read in one pass; `stays`: the nodes whose tokens are kept afterwards; `tokens`: kept ones before
    the pass and new ones."""

    tree: KVTree
    nodes: Sequence[Node]
    stays: set[int]
    tokens: int


def _parts(growth: Extension) -> list[_Part]:
    tree, first = growth.tree, len(growth.tree.parents)
    parents = [*tree.parents, *(node.parent for node in growth.nodes)]
    lengths = [*tree.lengths, *(len(node.segment.ids) for node in growth.nodes)]
    kept = set(tree.states)
    parts: list[_Part] = []
    for group in consecutive(lengths[first:], CHUNK):
        end = first + group[-1] + 1
        new = range(first + group[0], end)
        stays = kept.union(new)
        if not growth.keep:
            stays = with_ancestors({parent for parent in parents[end:] if 0 <= parent < end}, parents)
        tokens = sum(lengths[node] for node in kept.union(new))
        parts.append(_Part(tree, [growth.nodes[i] for i in group], stays, tokens))
        kept = stays
    return parts


class _NewRow:
    """The new tokens of one tree as a row. `local` are its nodes, numbered from 0, without the kept parents."""

    def __init__(self, part: _Part, positions: Positions) -> None:
        self.tree, self.stays, self.first = part.tree, part.stays, len(part.tree.parents)
        self.scored = [k for k, node in enumerate(part.nodes) if node.scores >= 0]
        place = {k: i for i, k in enumerate(self.scored)}
        self.local = [
            replace(n, parent=max(n.parent - self.first, -1), scores=place.get(k, -1), writes=place.get(k, -1))
            for k, n in enumerate(part.nodes)
        ]
        # `roots`: the kept parent of a new node, if it has one. `below`: each new node's nearest kept ancestor.
        self.roots = {k: node.parent for k, node in enumerate(part.nodes) if 0 <= node.parent < self.first}
        self.followed = sorted(set(self.roots.values()))
        self.below: list[int] = []
        for k, node in enumerate(self.local):
            self.below.append(self.below[node.parent] if node.parent >= 0 else self.roots.get(k, -1))
        starts = {k: self.tree.next_position[parent] for k, parent in self.roots.items()}
        self.row: PackedRow = lay_out(self.local, positions, starts)
        order = depth_first(self.local)
        self.owner_of = [k for k in order for _ in self.local[k].segment.ids]
        self.last_of = {k: i for i, k in enumerate(self.owner_of)}

    def first_of(self, k: int) -> int:
        return self.last_of[k] + 1 - len(self.local[k].segment.ids)

    def add_to_tree(self, layers: Sequence[Layer], states_TD: Tensor, scores: Sequence[StepScore]) -> None:
        """Add these nodes to the tree: the keys and values of the row's tokens, its hidden states and its scores; and
        drop the tokens that are not needed afterwards."""
        tree = self.tree
        tree.keep(node for node in self.stays if node < self.first)
        for k, node in enumerate(self.local):
            tree.parents.append(self.roots.get(k, self.first + node.parent if node.parent >= 0 else -1))
            tree.lengths.append(len(node.segment.ids))
            first, last = self.first_of(k), self.last_of[k]
            tree.next_position.append(int(self.row.positions[:, first : last + 1].max()) + 1)
            if self.first + k in self.stays:
                tree.states[self.first + k] = states_TD[last].clone()
        tree.scores.update({self.first + k: score for k, score in zip(self.scored, scores, strict=False)})
        owners = torch.tensor(self.owner_of, device=states_TD.device) + self.first
        index = _tokens_of(self.stays, owners, len(tree.parents))
        if not len(index):
            return
        new = [(keys[:, index], values[:, index]) for keys, values in layers]
        if tree.layers:
            pairs = zip(tree.layers, new, strict=True)
            new = [(torch.cat([k, n], 1), torch.cat([v, m], 1)) for (k, v), (n, m) in pairs]
        tree.owners, tree.layers = torch.cat([tree.owners.to(owners.device), owners[index]]), new
        shown = torch.tensor(self.row.image_mask, device=owners.device)[index]
        tree.shown = torch.cat([tree.shown.to(owners.device), shown])


def _tokens_of(nodes: Iterable[int], owners_P: Tensor, count: int) -> Tensor:
    """The indices of the tokens whose owner is one of these of `count` nodes."""
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[list(nodes)] = True
    return chosen.to(owners_P.device)[owners_P].nonzero().squeeze(1)


def _forward(checkpoint: Checkpoint, parts: Sequence[_Part]) -> None:
    """One forward pass."""
    model, inputs = checkpoint.model, checkpoint.inputs
    rows = [_NewRow(part, inputs.positions) for part in parts]
    batch = inputs.step_batch([new.row for new in rows])
    batch |= _kept_states(rows, batch)
    batch = {name: value.to(model.device) for name, value in batch.items()}
    batch["attention_mask"] = _mask(model, rows, batch)
    batch.pop("until", None)
    if getattr(model, "reads_lookback", False) and any(new.tree.kept for new in rows):
        batch["kept_images"] = pad_sequence([new.tree.shown.to(model.device) for new in rows], batch_first=True)
    count = passes_of(model) * model.config.get_text_config().num_hidden_layers
    cache = Cache(layers=_kept_layers([new.tree for new in rows], count))
    output = model(**batch, past_key_values=cache)
    scores = step_scores(output, checkpoint.config.head)
    length = batch["input_ids"].shape[1]
    for b, new in enumerate(rows):
        layers = [(layer.keys[b], layer.values[b]) for layer in cache.layers]
        new.add_to_tree(layers, output.states[b, -length:], scores[b])


class _KeptLayer(DynamicLayer):  # type: ignore[misc]
    """The kept keys and values of all trees in one layer. They are copied into one padded tensor when the layer needs
    them, so that there is such a copy of one layer at a time. Afterwards `keys` and `values` are the new ones."""

    def __init__(self, kept: Sequence[Layer | None], longest: int) -> None:
        super().__init__()
        self.kept, self.longest = kept, longest

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> Layer:
        """The kept keys and values, padded at the end, before the new ones."""
        self.keys, self.values, self.is_initialized = keys, values, True
        if not self.longest:
            return keys, values
        return self._joined(keys, 0), self._joined(values, 1)

    def _joined(self, new_BHTD: Tensor, which: int) -> Tensor:
        rows, heads, length, width = new_BHTD.shape
        joined = new_BHTD.new_zeros(rows, heads, self.longest + length, width)
        joined[:, :, self.longest :] = new_BHTD
        for b, kept in enumerate(self.kept):
            if kept is not None:
                joined[b, :, : kept[which].shape[1]] = kept[which]
        return joined

    def get_seq_length(self) -> int:
        """Number of kept tokens, padded."""
        return self.longest


def _kept_layers(trees: Sequence[KVTree], count: int) -> list[DynamicLayer]:
    longest = max(tree.kept for tree in trees)
    return [_KeptLayer([tree.layers[i] if tree.layers else None for tree in trees], longest) for i in range(count)]


def _mask(model: Any, rows: Sequence[_NewRow], batch: dict[str, Tensor]) -> Any:
    """What the new tokens attend to. Prompts without branches, which follow nothing, are read as causal rows: no token
    attends to the padding at their end, and the flash kernel takes no mask."""
    ids_BT = batch["input_ids"]
    kept = _kept_mask(rows, ids_BT)
    if kept is None and "until" not in batch:
        return torch.ones_like(ids_BT)
    until_BT = batch["until"] if "until" in batch else torch.full_like(ids_BT, ids_BT.shape[1])
    return mask_for(model, until_BT, kept)


def _kept_mask(rows: Sequence[_NewRow], ids_BT: Tensor) -> KeptMask | None:
    """Which kept tokens the new ones attend to: those of the kept node that they are below, and of its ancestors. The
    last group attends to none."""
    longest, last = max(new.tree.kept for new in rows), max(len(new.followed) for new in rows)
    if not longest:
        return None
    sees_BGP = torch.zeros(len(rows), last + 1, longest, dtype=torch.bool, device=ids_BT.device)
    group_BT = torch.full(ids_BT.shape, last)
    for b, new in enumerate(rows):
        above_GN = torch.zeros(last + 1, len(new.tree.parents), dtype=torch.bool)
        for g, node in enumerate(new.followed):
            above_GN[g, list(with_ancestors([node], new.tree.parents))] = True
        sees_BGP[b, :, : new.tree.kept] = above_GN.to(ids_BT.device)[:, new.tree.owners]
        group_of = {node: g for g, node in enumerate(new.followed)}
        groups = [group_of.get(node, last) for node in new.below]
        group_BT[b, : len(new.owner_of)] = torch.tensor([groups[k] for k in new.owner_of])
    return KeptMask(sees_BGP, group_BT.to(ids_BT.device))


def _kept_states(rows: Sequence[_NewRow], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The hidden states of the kept nodes that new ones follow (B, R, D), which are put before the new states, and the
    batch's indices shifted accordingly."""
    count = max(len(new.followed) for new in rows)
    if not count:
        return {}
    before_BT, ends_BS = batch["before"] + count, batch["step_ends"]
    states = [[new.tree.states[node] for node in new.followed] for new in rows]
    blank = torch.zeros_like(next(state for of_row in states for state in of_row))
    for b, new in enumerate(rows):
        for k, parent in new.roots.items():
            before_BT[b, new.first_of(k)] = new.followed.index(parent)
    kept_BRD = torch.stack([torch.stack([*of_row, *[blank] * (count - len(of_row))]) for of_row in states])
    return {"kept": kept_BRD, "before": before_BT, "step_ends": torch.where(ends_BS < 0, ends_BS, ends_BS + count)}
