"""Incremental scoring of step trees with a KV cache: each token is computed once. A new step costs only its own tokens,
and all candidates of a problem share the image and the prompt.

A `KVTree` holds what has been read of one problem; `extend` grows many trees at once. New nodes are laid out as in
`vlprm.model.packing`; a node attends to the kept tokens of its ancestors only.

Shapes: B trees, S steps, T new tokens, P kept tokens, R kept states (one per kept node with new children), D the width
of a state or of an attention head, H key heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from vlprm.model.loading import Checkpoint
from vlprm.model.packing import Node, PackedRow, Positions, consecutive, depth_first, lay_out, padded_batches, tree_mask
from vlprm.model.reward_model import step_scores
from vlprm.schema import StepScore

MAX_TOKENS = 16_384  # new tokens per forward pass, including padding
# New tokens of one tree per forward pass. Attention between siblings is computed and then masked, so large chunks waste
# compute; small ones pay the overhead of a pass more often.
CHUNK = 1024


@dataclass
class KVTree:
    """The tokens read for one problem. Per node: its ancestors and itself (`above`), the next position, its last hidden
    state (while its tokens are kept) and its score, if it has one. Per kept token: its node (`owners`) and the keys and
    values (H, P, D) of each layer."""

    above: list[tuple[int, ...]] = field(default_factory=list)
    next_position: list[int] = field(default_factory=list)
    states: dict[int, Tensor] = field(default_factory=dict)
    scores: dict[int, StepScore] = field(default_factory=dict)
    owners: list[int] = field(default_factory=list)
    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    tokens_read: int = 0

    def keep(self, nodes: Iterable[int]) -> None:
        """Drop the tokens of all nodes except these and their ancestors. Scores stay."""
        kept = {above for node in nodes for above in self.above[node]}
        index = [i for i, node in enumerate(self.owners) if node in kept]
        if len(index) < len(self.owners):
            self.owners = [self.owners[i] for i in index]
            self.layers = [(keys[:, index], values[:, index]) for keys, values in self.layers]
            self.states = {node: state for node, state in self.states.items() if node in kept}


@dataclass(frozen=True)
class Extension:
    """Nodes to read below those of a tree, numbered after its own. A parent is a node whose tokens are kept, an earlier
    new node, or -1 for a prompt. With `keep`, the tokens stay in the cache for later extensions."""

    tree: KVTree
    nodes: Sequence[Node]
    keep: bool = True


@torch.inference_mode()
def extend(checkpoint: Checkpoint, growths: Sequence[Extension]) -> None:
    """Read the nodes and store their scores in the trees. UserError if the model returns values that are not
    finite."""
    waiting = [list(_parts(growth)) for growth in growths]
    while any(waiting):
        parts = [of_tree.pop(0) for of_tree in waiting if of_tree]
        sizes = [sum(len(node.segment.ids) for node in part.nodes) for part in parts]
        for group in padded_batches(sizes, MAX_TOKENS):
            _forward(checkpoint, [parts[i] for i in group])


@dataclass(frozen=True)
class _Part:
    """Nodes that are read in one pass, and the nodes whose tokens are needed afterwards (None: all)."""

    tree: KVTree
    nodes: Sequence[Node]
    needed: Sequence[int] | None


def _parts(growth: Extension) -> Iterator[_Part]:
    first = len(growth.tree.above)
    for group in consecutive([len(node.segment.ids) for node in growth.nodes], CHUNK):
        rest = growth.nodes[group[-1] + 1 :]
        needed = [node.parent for node in rest if 0 <= node.parent <= first + group[-1]]
        yield _Part(growth.tree, [growth.nodes[i] for i in group], None if growth.keep else needed)


class _NewRow:
    """The new tokens of one tree as a row. `local` are its nodes, numbered from 0, without the kept parents."""

    def __init__(self, part: _Part, positions: Positions) -> None:
        self.tree, self.first = part.tree, len(part.tree.above)
        self.scored = [k for k, node in enumerate(part.nodes) if node.scores >= 0]
        place = {k: i for i, k in enumerate(self.scored)}
        self.local = [
            replace(n, parent=max(n.parent - self.first, -1), scores=place.get(k, -1), writes=place.get(k, -1))
            for k, n in enumerate(part.nodes)
        ]
        # `roots`: the kept parent of a new node, if it has one. `below`: each new node's nearest kept ancestor.
        self.roots = {k: node.parent for k, node in enumerate(part.nodes) if 0 <= node.parent < self.first}
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

    def sees(self) -> Tensor:
        """(T, P), true where a new token attends to a kept one."""
        table = [
            [owner in above for owner in self.tree.owners] for above in map(self._kept_above, range(len(self.local)))
        ]
        return torch.tensor(table, dtype=torch.bool)[self.owner_of]

    def _kept_above(self, k: int) -> frozenset[int]:
        return frozenset(self.tree.above[self.below[k]] if self.below[k] >= 0 else ())

    def add_to_tree(self, layers: list[tuple[Tensor, Tensor]], states_TD: Tensor, scores: Sequence[StepScore]) -> None:
        """Add these nodes to the tree: the keys and values of the row's tokens, its hidden states and its scores."""
        tree, size = self.tree, len(self.owner_of)
        for k, node in enumerate(self.local):
            parent = self.roots.get(k, self.first + node.parent if node.parent >= 0 else -1)
            tree.above.append((*(tree.above[parent] if parent >= 0 else ()), self.first + k))
            first, last = self.first_of(k), self.last_of[k]
            tree.next_position.append(int(self.row.positions[:, first : last + 1].max()) + 1)
            tree.states[self.first + k] = states_TD[last]
        tree.scores.update({self.first + k: score for k, score in zip(self.scored, scores, strict=False)})
        tree.owners += [self.first + k for k in self.owner_of]
        new = [(keys[:, :size], values[:, :size]) for keys, values in layers]
        pairs = zip(tree.layers, new, strict=True)
        tree.layers = [(torch.cat([k, n], 1), torch.cat([v, m], 1)) for (k, v), (n, m) in pairs] if tree.layers else new
        tree.tokens_read += size


def _forward(checkpoint: Checkpoint, parts: Sequence[_Part]) -> None:
    """One forward pass."""
    model, inputs = checkpoint.model, checkpoint.inputs
    rows = [_NewRow(part, inputs.positions) for part in parts]
    batch = inputs.step_batch([new.row for new in rows])
    length = batch["input_ids"].shape[1]
    cache = _kept_cache([part.tree for part in parts])
    batch["attention_mask"] = _mask(rows, batch.pop("until", None), cache.get_seq_length())
    batch |= _kept_states(rows, batch)
    output = model(**{name: value.to(model.device) for name, value in batch.items()}, past_key_values=cache)
    scores = step_scores(output, checkpoint.config.head)
    for b, (part, new) in enumerate(zip(parts, rows, strict=True)):
        layers = [(layer.keys[b, :, -length:], layer.values[b, :, -length:]) for layer in cache.layers]
        new.add_to_tree(layers, output.states[b, -length:], scores[b])
        if part.needed is not None:
            part.tree.keep(part.needed)


def _kept_cache(trees: Sequence[KVTree]) -> DynamicCache:
    """The kept keys and values of all trees as one cache, padded at the end."""
    cache = DynamicCache()
    longest = max(len(tree.owners) for tree in trees)
    if longest:
        like = next(tree.layers for tree in trees if tree.layers)
        for i, (keys, values) in enumerate(like):
            empty = keys[:, :0], values[:, :0]
            pairs = [tree.layers[i] if tree.layers else empty for tree in trees]
            cache.update(
                *(torch.stack([_padded(part, longest) for part in parts]) for parts in zip(*pairs, strict=True)), i
            )
    return cache


def _padded(part_HPD: Tensor, length: int) -> Tensor:
    return F.pad(part_HPD, (0, 0, 0, length - part_HPD.shape[1]))


def _mask(rows: Sequence[_NewRow], until_BT: Tensor | None, kept: int) -> Tensor:
    """(B, 1, T, P + T), true where a new token attends to a kept or a new one."""
    length = max(len(new.owner_of) for new in rows)
    if until_BT is None:
        until_BT = torch.full((len(rows), length), length)
    mask = torch.cat([torch.zeros(len(rows), 1, length, kept, dtype=torch.bool), tree_mask(until_BT)], dim=-1)
    for b, new in enumerate(rows):
        mask[b, 0, : len(new.owner_of), : len(new.tree.owners)] = new.sees()
    return mask


def _kept_states(rows: Sequence[_NewRow], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The hidden states of the kept nodes that new ones follow (B, R, D), which are put before the new states, and the
    batch's indices shifted accordingly."""
    followed = [sorted(set(new.roots.values())) for new in rows]
    count = max(map(len, followed))
    if not count:
        return {}
    before_BT, ends_BS = batch["before"] + count, batch["step_ends"]
    states = [[new.tree.states[node] for node in nodes] for new, nodes in zip(rows, followed, strict=True)]
    blank = torch.zeros_like(next(state for of_row in states for state in of_row))
    for b, (new, nodes) in enumerate(zip(rows, followed, strict=True)):
        for k, parent in new.roots.items():
            before_BT[b, new.first_of(k)] = nodes.index(parent)
    kept_BRD = torch.stack([torch.stack([*of_row, *[blank] * (count - len(of_row))]) for of_row in states])
    return {"kept": kept_BRD, "before": before_BT, "step_ends": torch.where(ends_BS < 0, ends_BS, ends_BS + count)}
