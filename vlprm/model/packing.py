"""Segments -> one sequence -> a padded batch. A search tree is one sequence, in which a prefix shared by branches
appears once.

Nodes are laid out depth first, so that the subtree of a node is a run of tokens and the tree mask needs one number per
token, `until`: tokens i with j <= i < until[j] attend to token j. These are the tokens of its own node and of its
descendants; siblings do not attend to each other. Positions continue from the parent's, so each path has the ids,
positions and attention that it has alone. A chain is a tree without branches; several trees side by side are a forest.

Shapes: B rows, S steps of a row (padded), T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Segment:
    """Token ids that belong together and the tensors of their images, by the processor's names. `written`: number of
    leading ids that the policy writes (these get a loss); `end`: index of the id at which a step is scored."""

    ids: tuple[int, ...]
    image_mask: tuple[bool, ...]
    images: tuple[dict[str, Tensor], ...] = ()
    written: int = 0
    end: int = -1


@dataclass(frozen=True)
class Node:
    """A segment after its parent node (-1: none). `writes`: the step whose text it is; `scores`: the step scored at its
    end; -1 for none. If `taught`, the LM head is trained on it."""

    segment: Segment
    parent: int
    writes: int = -1
    scores: int = -1
    taught: bool = False


@dataclass(frozen=True)
class PackedRow:
    """One sequence of T tokens. Per token: its id, whether it is an image token, the step that the policy wrote it in
    (-1: not written by the policy), whether the LM head is trained on it, the index of the token before it on its path,
    and one past the last token that may attend to it. `positions` is (P, T), see `Positions`; `step_ends` has the index
    at which each step is scored."""

    ids: tuple[int, ...]
    image_mask: tuple[bool, ...]
    written_in: tuple[int, ...]
    taught: tuple[bool, ...]
    before: tuple[int, ...]
    until: tuple[int, ...]
    positions: Tensor
    images: tuple[dict[str, Tensor], ...]
    step_ends: tuple[int, ...]

    @property
    def branches(self) -> bool:
        """Whether the row is a tree with branches or a forest."""
        return min(self.until) < len(self.ids)


# (segment, start) -> positions (P, length) and the start of the next segment. P is 3 for rotary embeddings of time,
# height and width, else 1.
Positions = Callable[[Segment, int], tuple[Tensor, int]]


def lay_out(nodes: Sequence[Node], positions: Positions, starts_at: Mapping[int, int] | None = None) -> PackedRow:
    """The sequence of a tree or a forest. Parents come before their children. `starts_at` has the first position of
    roots that do not start at 0."""
    order = depth_first(nodes)
    starts = _offsets([len(nodes[k].segment.ids) for k in order])
    start_of = dict(zip(order, starts, strict=True))
    size_of = _subtree_sizes(nodes)
    next_position: dict[int, int] = {}
    roots = starts_at or {}
    parts, before, until, written, taught, ends = [], [], [], [], [], {}
    for k in order:
        node, start = nodes[k], start_of[k]
        length = len(node.segment.ids)
        above = node.parent
        part, next_position[k] = positions(node.segment, roots.get(k, 0) if above < 0 else next_position[above])
        parts.append(part)
        last = start_of[above] + len(nodes[above].segment.ids) - 1 if above >= 0 else start
        before += [last, *range(start, start + length - 1)]
        until += [start + size_of[k]] * length
        written += [node.writes if i < node.segment.written else -1 for i in range(length)]
        taught += [node.taught and i < node.segment.written for i in range(length)]
        if node.scores >= 0:
            ends[node.scores] = start + node.segment.end
    segments = [nodes[k].segment for k in order]
    return PackedRow(
        ids=tuple(i for s in segments for i in s.ids),
        image_mask=tuple(m for s in segments for m in s.image_mask),
        written_in=tuple(written),
        taught=tuple(taught),
        before=tuple(before),
        until=tuple(until),
        positions=torch.cat(parts, dim=1),
        images=tuple(image for s in segments for image in s.images),
        step_ends=tuple(ends[s] for s in range(len(ends))),
    )


def join(rows: Sequence[PackedRow]) -> PackedRow:
    """Rows side by side in one sequence; tokens of different rows do not attend to each other. Steps are
    concatenated."""
    starts = _offsets([len(row.ids) for row in rows])
    first_steps = _offsets([len(row.step_ends) for row in rows])
    return PackedRow(
        ids=tuple(i for row in rows for i in row.ids),
        image_mask=tuple(m for row in rows for m in row.image_mask),
        written_in=tuple(
            w + first if w >= 0 else -1 for row, first in zip(rows, first_steps, strict=True) for w in row.written_in
        ),
        taught=tuple(t for row in rows for t in row.taught),
        before=tuple(b + start for row, start in zip(rows, starts, strict=True) for b in row.before),
        until=tuple(u + start for row, start in zip(rows, starts, strict=True) for u in row.until),
        positions=torch.cat([row.positions for row in rows], dim=1),
        images=tuple(image for row in rows for image in row.images),
        step_ends=tuple(e + start for row, start in zip(rows, starts, strict=True) for e in row.step_ends),
    )


@dataclass(frozen=True)
class KeptMask:
    """Which of P kept tokens the new tokens of B rows attend to. New tokens that attend to the same kept tokens form
    one of G groups. `sees` (B, G, P) is true where a group attends to a kept token; `group` (B, T) is each token's
    group."""

    sees: Tensor
    group: Tensor


def tree_mask(until_BT: Tensor, kept: KeptMask | None = None) -> Tensor:
    """(B, 1, T, P + T), true where the query (third axis) attends to the key (fourth): to one of P kept tokens, or to a
    token of its row."""
    token_T = torch.arange(until_BT.shape[1], device=until_BT.device)
    query_T1, key_1T = token_T[:, None], token_T[None, :]
    own_BTT = (key_1T <= query_T1) & (query_T1 < until_BT[:, None, :])
    if kept is None:
        return own_BTT[:, None]
    row_B1 = torch.arange(len(until_BT), device=until_BT.device)[:, None]
    return torch.cat([kept.sees[row_B1, kept.group], own_BTT], dim=-1)[:, None]


def collate(rows: Sequence[PackedRow], pad_id: int, side: str = "right") -> dict[str, Tensor]:
    """Rows as one padded batch: token ids, attention mask and types (1 for images) (B, T), positions (P, B, T) or (B,
    T), and `until` (B, T) if a row branches. Never truncates."""
    length = max(len(row.ids) for row in rows)
    shape = (len(rows), length)
    ids_BT = torch.full(shape, pad_id)
    mask_BT, types_BT = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    positions_PBT = torch.zeros((len(rows[0].positions), *shape), dtype=torch.long)
    for b, row in enumerate(rows):
        size = len(row.ids)
        start = 0 if side == "right" else length - size
        ids_BT[b, start : start + size] = torch.tensor(row.ids)
        mask_BT[b, start : start + size] = 1
        types_BT[b, start : start + size] = torch.tensor(row.image_mask, dtype=torch.long)
        positions_PBT[:, b, start : start + size] = row.positions
    batch = {"input_ids": ids_BT, "attention_mask": mask_BT, "token_types": types_BT,
             "position_ids": positions_PBT if len(positions_PBT) > 1 else positions_PBT[0]}  # fmt: skip
    if any(row.branches for row in rows):
        assert side == "right"
        # A padding token attends only to itself: a query without keys would give NaN.
        batch["until"] = torch.arange(1, length + 1).repeat(len(rows), 1)
        for b, row in enumerate(rows):
            batch["until"][b, : len(row.ids)] = torch.tensor(row.until)
    return batch


def step_places(rows: Sequence[PackedRow]) -> dict[str, Tensor]:
    """The inputs of a reward model in addition to a batch of `collate`: step ends (B, S; padded with -1); per token (B,
    T) the step that the policy wrote it in (-1: none) and the index of the token before it on its path; and, if the LM
    head is trained, on which tokens."""
    shape = (len(rows), max(len(row.ids) for row in rows))
    ends_BS = torch.full((len(rows), max(len(row.step_ends) for row in rows)), -1)
    written_BT, before_BT = torch.full(shape, -1), torch.zeros(shape, dtype=torch.long)
    for b, row in enumerate(rows):
        ends_BS[b, : len(row.step_ends)] = torch.tensor(row.step_ends, dtype=torch.long)
        written_BT[b, : len(row.ids)] = torch.tensor(row.written_in)
        before_BT[b, : len(row.ids)] = torch.tensor(row.before)
    places = {"step_ends": ends_BS, "written_in": written_BT, "before": before_BT}
    if any(any(row.taught) for row in rows):
        places["taught"] = torch.zeros(shape, dtype=torch.bool)
        for b, row in enumerate(rows):
            places["taught"][b, : len(row.ids)] = torch.tensor(row.taught)
    return places


def padded_batches(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Indices of rows, shortest first, in batches whose padded size is at most `limit` (a larger row gets its own
    batch)."""
    batches: list[list[int]] = []
    for i in sorted(range(len(sizes)), key=lambda i: sizes[i]):
        if batches and (len(batches[-1]) + 1) * sizes[i] <= limit:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def consecutive(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Groups of consecutive indices whose sizes sum to at most `limit` (a larger item gets its own group)."""
    groups: list[list[int]] = []
    total = 0
    for i, size in enumerate(sizes):
        if not groups or total + size > limit:
            groups.append([])
            total = 0
        groups[-1].append(i)
        total += size
    return groups


def joined_images(images: Sequence[dict[str, Tensor]], tiles: str) -> dict[str, Tensor]:
    """The tensors of all images of a batch; `tiles` as in `vlprm.model.families`."""
    joined: dict[str, Tensor] = {}
    for name in images[0] if images else ():
        parts = [image[name] for image in images]
        if tiles == "padded" and name == "pixel_values":
            most = max(part.shape[1] for part in parts)
            parts = [F.pad(part, (0, 0, 0, 0, 0, 0, 0, most - part.shape[1])) for part in parts]
        joined[name] = torch.cat(parts, dim=1 if tiles == "joined" else 0)
    return joined


def _offsets(lengths: Sequence[int]) -> list[int]:
    offsets, total = [], 0
    for length in lengths:
        offsets.append(total)
        total += length
    return offsets


def depth_first(nodes: Sequence[Node]) -> list[int]:
    """Indices of nodes in layout order."""
    children: dict[int, list[int]] = {}
    for k, node in enumerate(nodes):
        assert node.parent < k
        children.setdefault(node.parent, []).append(k)
    order, waiting = [], children.get(-1, [])[::-1]
    while waiting:
        order.append(waiting.pop())
        waiting += children.get(order[-1], [])[::-1]
    return order


def _subtree_sizes(nodes: Sequence[Node]) -> list[int]:
    """Tokens of each node and its descendants."""
    sizes = [len(node.segment.ids) for node in nodes]
    for k in reversed(range(len(nodes))):
        if nodes[k].parent >= 0:
            sizes[nodes[k].parent] += sizes[k]
    return sizes
