"""Trees as one sequence: layout, attention masks, forests."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_mask

from vlprm.model.packing import KeptMask, Node, PackedRow, Segment, collate, join, lay_out, padded_batches, tree_mask
from vlprm.model.tree_attention import block_mask


def segment(*ids: int) -> Segment:
    return Segment(ids, (False,) * len(ids), (), len(ids), len(ids) - 1)


def linear(part: Segment, start: int) -> tuple[Tensor, int]:
    return torch.arange(start, start + len(part.ids))[None], start + len(part.ids)


@pytest.fixture
def tree() -> PackedRow:
    """A prompt (ids 1 2); under it 10 and 20 21; under 10: 11 and 12 13; in the order in which a search makes them."""
    nodes = [Node(segment(1, 2), -1), Node(segment(10), 0, 0, 0), Node(segment(20, 21), 0, 1, 1),
             Node(segment(11), 1, 2, 2), Node(segment(12, 13), 1, 3, 3)]  # fmt: skip
    return lay_out(nodes, linear)


def seen(row: PackedRow, token: int) -> list[int]:
    """The ids that the token with this id attends to."""
    mask = tree_mask(torch.tensor([row.until]))[0, 0]
    return [row.ids[k] for k in mask[row.ids.index(token)].nonzero().flatten().tolist()]


def test_each_path_is_in_sight_and_no_other(tree: PackedRow) -> None:
    assert sorted(tree.ids) == [1, 2, 10, 11, 12, 13, 20, 21]
    assert [seen(tree, token) for token in (2, 10, 11, 13, 21)] == [
        [1, 2], [1, 2, 10], [1, 2, 10, 11], [1, 2, 10, 12, 13], [1, 2, 20, 21]
    ]  # fmt: skip


def test_positions_and_what_was_read_before_go_on_from_the_parent(tree: PackedRow) -> None:
    where = {token: k for k, token in enumerate(tree.ids)}
    position = {token: int(tree.positions[0, k]) for token, k in where.items()}
    assert position == {1: 0, 2: 1, 10: 2, 20: 2, 21: 3, 11: 3, 12: 3, 13: 4}
    before = {token: tree.ids[tree.before[k]] for token, k in where.items()}
    assert before == {1: 1, 2: 1, 10: 2, 20: 2, 21: 20, 11: 10, 12: 10, 13: 12}
    assert [tree.ids[end] for end in tree.step_ends] == [10, 21, 11, 13]
    assert [tree.written_in[where[token]] for token in (1, 10, 20, 21, 11, 13)] == [-1, 0, 1, 1, 2, 3]


def test_rows_side_by_side_do_not_see_each_other(tree: PackedRow) -> None:
    other = lay_out([Node(segment(5, 6), -1), Node(segment(7), 0, 0, 0)], linear)
    assert not other.branches
    both = join([tree, other, tree])
    assert both.branches
    assert seen(both, 7) == [5, 6, 7]
    assert [both.ids[end] for end in both.step_ends] == [10, 21, 11, 13, 7, 10, 21, 11, 13]
    assert [both.written_in[end] for end in both.step_ends] == list(range(9))
    assert torch.equal(both.positions, torch.cat([tree.positions, other.positions, tree.positions], dim=1))
    assert [both.ids[both.before[end]] for end in both.step_ends] == [2, 20, 10, 12, 6, 2, 20, 10, 12]


def test_the_block_mask_of_a_gpu_is_the_dense_one(tree: PackedRow) -> None:
    """The rows are padded; a padding token attends to itself, since a query without keys gives NaN."""
    other = lay_out([Node(segment(5, 6, 7), -1)], linear)
    until = collate([tree, other], 0)["until"]
    dense = tree_mask(until)
    blocks = create_mask(block_mask(until).mask_mod, len(until), 1, until.shape[1], until.shape[1], device="cpu")
    assert torch.equal(blocks, dense)
    assert dense[1, 0, 5].nonzero().flatten().tolist() == [5]
    assert dense.any(dim=-1).all()


def test_the_block_mask_over_kept_tokens_is_the_dense_one(tree: PackedRow) -> None:
    """Two rows with different kept tokens; tokens of a group see the same ones, and the last group sees none."""
    other = lay_out([Node(segment(5, 6, 7), -1)], linear)
    until = collate([tree, other], 0)["until"]
    generator = torch.Generator().manual_seed(0)
    sees = torch.rand(2, 3, 5, generator=generator) < 0.5
    sees[:, 2] = False
    kept = KeptMask(sees, torch.randint(0, 3, until.shape, generator=generator))
    dense = tree_mask(until, kept)
    mask = block_mask(until, kept).mask_mod
    assert torch.equal(create_mask(mask, 2, 1, until.shape[1], 5 + until.shape[1], device="cpu"), dense)
    assert torch.equal(dense[..., 5:], tree_mask(until))
    for b, t in ((0, 1), (1, 4)):
        assert torch.equal(dense[b, 0, t, :5], sees[b, kept.group[b, t]])


def test_a_padded_batch_stays_under_its_budget() -> None:
    batches = padded_batches([5, 100, 7, 6, 40], 20)
    assert batches == [[0, 3], [2], [4], [1]]
    assert padded_batches([5, 100, 7, 6, 40], 21) == [[0, 3, 2], [4], [1]]
