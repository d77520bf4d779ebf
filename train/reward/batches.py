"""Turn training rows into the tensors of a batch.

Shapes: B rows, S steps (padded), C candidates (padded), P pairs, N critique ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from train.reward.data import LabelledRow
from train.reward.losses import IGNORE
from vlprm.model.inputs import InputBuilder

# Keys of a batch that the reward model does not read.
NOT_INPUTS = frozenset({
    "labels", "error_kinds", "wrong", "counts", "weights", "siblings", "candidates", "paths", "ranked",
    "taught_weights", "totals", "ids",
})  # fmt: skip


def batch_rows(rows: Sequence[LabelledRow], inputs: InputBuilder) -> dict[str, Tensor]:
    """A padded batch: `labels` (B, S) float, `IGNORE` for no loss; `error_kinds`, `wrong` and `weights` (B, S);
    `counts` (B, S, 2) of right and valid rollouts; `siblings` and `candidates` (P, 3) of (row, better, worse); `paths`
    (B, C, S); `ranked` (B, C, S), 1 for the correct steps of a solution up to its first error, which has -1;
    `taught_weights` (N) of critique ids; `totals` (6), this batch's part of the loss's denominators."""
    batch = inputs.step_batch(inputs.with_an_image([r.row for r in rows]))
    shape = batch["step_ends"].shape
    labels_BS, kinds_BS, weights_BS = torch.full(shape, float(IGNORE)), torch.full(shape, -1), torch.zeros(shape)
    counts_BS2, wrong_BS = torch.zeros(*shape, 2), torch.zeros(shape, dtype=torch.long)
    paths_BCS = torch.zeros(len(rows), max(1, *(len(row.paths) for row in rows)), shape[1])
    ranked_BCS = torch.zeros(len(rows), max(1, *(len(row.ranked) for row in rows)), shape[1], dtype=torch.long)
    for b, row in enumerate(rows):
        size = len(row.targets)
        labels_BS[b, :size], kinds_BS[b, :size] = torch.tensor(row.targets), torch.tensor(row.kinds)
        wrong_BS[b, :size] = torch.tensor(row.wrong).long()
        counts_BS2[b, :size], weights_BS[b, :size] = torch.tensor(row.counts).float(), torch.tensor(row.weights)
        for c, path in enumerate(row.paths):
            paths_BCS[b, c, list(path)] = 1
        for c, (right, error) in enumerate(row.ranked):
            ranked_BCS[b, c, list(right)] = 1
            if error >= 0:
                ranked_BCS[b, c, error] = -1
    siblings_P3, candidates_P3 = _pairs([r.siblings for r in rows]), _pairs([r.candidates for r in rows])
    taught_N = torch.tensor([weight for row in rows for weight in row.taught])
    learnt_BS = labels_BS != IGNORE
    labelled, counted = weights_BS[learnt_BS].sum(), weights_BS[learnt_BS & (counts_BS2[..., 1] > 0)].sum()
    return {
        **batch,
        "labels": labels_BS, "error_kinds": kinds_BS, "wrong": wrong_BS, "counts": counts_BS2, "weights": weights_BS,
        "siblings": siblings_P3, "candidates": candidates_P3, "paths": paths_BCS, "ranked": ranked_BCS,
        "taught_weights": taught_N,
        "totals": torch.tensor(
            [labelled, len(siblings_P3), len(candidates_P3), taught_N.sum(), counted, sum(len(r.ranked) for r in rows)]
        ),
    }  # fmt: skip


def _pairs(of_rows: Sequence[Sequence[tuple[int, int]]]) -> Tensor:
    return torch.tensor([(b, *pair) for b, pairs in enumerate(of_rows) for pair in pairs], dtype=torch.long).view(-1, 3)
