"""Dataset file -> training rows: labelled solutions, padded batches, and the loss over their steps."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vlprm.dataset import LabelledPath, read_rows, row_paths
from vlprm.inputs import IGNORE, InputBuilder, Row, collate_steps
from vlprm.reward_model import CORRECT, OUTPUTS

# A wrong step whose kind is not known may be of either; a zoom at the wrong place is a way of not seeing.
KIND_INDEX = {None: -1, "perception": OUTPUTS.index("perception"), "action": OUTPUTS.index("perception"),
              "reasoning": OUTPUTS.index("reasoning")}  # fmt: skip


@dataclass(frozen=True)
class LabelledRow:
    """A row with a target and an error kind (index of the head's output; -1 unknown) for each step."""

    row: Row
    targets: tuple[float, ...]
    kinds: tuple[int, ...]


def load_paths(path: Path, max_paths_per_tree: int) -> list[list[LabelledPath]]:
    """Labelled solutions of each problem, at most so many a problem, right and wrong ones taking turns."""
    return [_both_kinds(row_paths(row), max_paths_per_tree) for row in read_rows(path)]


def _both_kinds(paths: Sequence[LabelledPath], limit: int) -> list[LabelledPath]:
    right = [p for p in paths if p.right]
    wrong = [p for p in paths if p.right is False]
    taken: list[LabelledPath] = []
    for i in range(max(len(right), len(wrong))):
        taken += wrong[i : i + 1] + right[i : i + 1]
    return taken[:limit]


def in_length_batches(paths: Sequence[LabelledPath], batch_size: int, seed: int) -> list[LabelledPath]:
    """All paths, in a random order in which the rows of a batch have like lengths: little is padded.

    Random batches are drawn as usual, and within runs of 16 of them rows are sorted by length; the batches are then
    shuffled, so that the order of lengths means nothing.
    """
    rng = random.Random(seed)
    order = rng.sample(list(paths), len(paths))
    run = 16 * batch_size
    ordered = [p for i in range(0, len(order), run) for p in sorted(order[i : i + run], key=_length)]
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    # The last batch may be smaller; it stays last, so that the others stay whole.
    return [p for batch in [*rng.sample(batches[:-1], len(batches) - 1), batches[-1]] for p in batch]


def _length(path: LabelledPath) -> tuple[int, int]:
    """Images, each of which has about as many tokens as a step, then characters."""
    return sum(step.region is not None for step in path.steps), sum(len(step.text) for step in path.steps)


def labelled_row(path: LabelledPath, inputs: InputBuilder) -> LabelledRow:
    """ValueError on a target outside [0, 1]: the loss would be nonsense."""
    targets = [IGNORE if label.target is None else label.target for label in path.labels]
    if bad := [t for t in targets if t != IGNORE and not 0 <= t <= 1]:
        raise ValueError(f"{path.problem.id}: target {bad[0]} is not in [0, 1]; correct the dataset's labels")
    kinds = tuple(KIND_INDEX[label.error_kind] for label in path.labels)
    return LabelledRow(inputs.row(path.problem, path.steps), tuple(targets), kinds)


def batch_rows(rows: Sequence[LabelledRow], pad_id: int) -> dict[str, Tensor]:
    """A padded batch with `labels` (B, S) float, `IGNORE` where there is no loss, and `error_kinds` (B, S)."""
    batch = collate_steps([r.row for r in rows], pad_id)
    shape = batch["step_ends"].shape
    labels_BS, kinds_BS = torch.full(shape, float(IGNORE)), torch.full(shape, -1)
    for b, row in enumerate(rows):
        labels_BS[b, : len(row.targets)] = torch.tensor(row.targets)
        kinds_BS[b, : len(row.kinds)] = torch.tensor(row.kinds)
    return {**batch, "labels": labels_BS, "error_kinds": kinds_BS}


def step_loss(logits_BS3: Tensor, labels_BS: Tensor, kinds_BS: Tensor, labelled_steps: Any) -> Tensor:
    """Cross-entropy of the soft target (p correct, 1 - p its error kind), summed over the labelled steps and divided
    by `labelled_steps`: their number in the whole global batch, so that neither padding nor the split of a batch into
    parts changes the loss. Where the kind is unknown, the two error outputs count as one.
    """
    labelled_BS = labels_BS != IGNORE
    logits_N3, target_N, kind_N = logits_BS3[labelled_BS].float(), labels_BS[labelled_BS], kinds_BS[labelled_BS]
    log_p_N3 = F.log_softmax(logits_N3, dim=-1)
    log_any_error_N = torch.logsumexp(log_p_N3[:, CORRECT + 1 :], dim=-1)
    log_kind_N = log_p_N3.gather(1, kind_N.clamp(min=0)[:, None]).squeeze(1)
    log_wrong_N = torch.where(kind_N >= 0, log_kind_N, log_any_error_N)
    return -(target_N * log_p_N3[:, CORRECT] + (1 - target_N) * log_wrong_N).sum() / max(labelled_steps, 1)
