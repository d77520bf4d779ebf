"""transformers' Trainer with our batches and loss, and the metrics of held-out steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import EvalPrediction

from train.loop.batches import model_inputs
from train.loop.trainer import BatchTrainer, Parameters
from train.loop.transfer import Batch
from train.reward.batches import NOT_INPUTS, batch_rows
from train.reward.config import LossConfig
from train.reward.data import Example, LabelledRow, labelled_row
from train.reward.index import Index, Problems
from train.reward.losses import IGNORE, class_logits, training_loss
from vlprm.errors import UserError
from vlprm.metrics import auroc, brier, calibration_error
from vlprm.model.inputs import InputBuilder
from vlprm.model.reward_model import CORRECT, OUTPUTS


class Batches(Dataset[list[LabelledRow]]):
    """Planned batches, read from the dataset and turned into model inputs on demand, ahead of the device by the
    processes of a data loader. An item is a whole batch, because batches are sized by tokens, not by rows. `plan` lists
    the examples of each batch by their numbers in the index. `left_out`: numbers of solutions and rows that are not
    trained on, by cause."""

    def __init__(
        self,
        plan: Sequence[np.ndarray],
        index: Index,
        problems: Problems,
        inputs: InputBuilder,
        weights: dict[tuple[str, bool], float],
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        self.plan, self.index, self.problems = plan, index, problems
        self.inputs, self.weights, self.left_out = inputs.streamed(), weights, left_out

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> list[LabelledRow]:
        loss = self.problems.loss
        try:
            return [labelled_row(example, self.inputs, loss, self.weights) for example in self.examples(index)]
        except ValueError as error:  # a data loader's process hands over only errors made from a single message
            raise UserError(str(error)) from error

    def examples(self, index: int) -> list[Example]:
        """The examples of a batch."""
        rows, starts = self.index.lists("rows")
        examples = self.plan[index]
        of = self.index.problem_of(examples)
        read = {int(n): self.problems.examples(rows[starts[n] : starts[n + 1]]) for n in np.unique(of)}
        return [read[int(n)][example - self.index.starts[n]] for n, example in zip(of, examples, strict=True)]

    def ids(self) -> list[str]:
        """The problem of each example, batch after batch."""
        return [self.index.table["id"][int(n)].as_py() for batch in self.plan for n in self.index.problem_of(batch)]

    def collate(self, items: list[list[LabelledRow]]) -> Batch:
        """Tensors of one item (see `batch_rows`), and the `ids` of its problems."""
        (rows,) = items
        return Batch(batch_rows(rows, self.inputs), ids=[row.id for row in rows])


@contextmanager
def one_sentence() -> Iterator[None]:
    """Mend the messages of errors from a data loader's processes, which contain a traceback."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).rpartition("UserError: ")[2].strip()) from error


class StepTrainer(BatchTrainer):
    """Trainer with the loss of a step-reward model."""

    def __init__(self, loss: LossConfig, parameters: Parameters, **kwargs: Any) -> None:
        super().__init__(parameters, **kwargs)
        self.step_loss = loss

    def batch_loss(self, model: Any, batch: dict[str, Any], totals: Tensor) -> tuple[Tensor, Any]:
        """See `train.reward.losses`. Metrics need only the logits of the classes and of the value."""
        outputs = model(**model_inputs(batch, NOT_INPUTS))
        shown = {"logits": class_logits(outputs, batch)} | ({} if outputs.value is None else {"value": outputs.value})
        return training_loss(outputs, batch, totals, self.step_loss), shown


@dataclass(frozen=True)
class HeldOutSteps:
    """Arrays of the labelled held-out steps: predicted rewards, targets, whether the label's rule calls them right,
    error kinds (indices of the head's outputs), and the row of each step."""

    rewards: Any
    targets: Any
    right: Any
    kinds: Any
    rows: Any


def held_out_steps(prediction: EvalPrediction) -> HeldOutSteps:
    """The labelled steps of a measurement, without padding."""
    labels_BS, kinds_BS, wrong_BS, _ = prediction.label_ids
    labelled_BS = labels_BS != IGNORE
    logits_BSO, _ = _logits(prediction)
    logits_NO = torch.tensor(logits_BSO[labelled_BS])
    return HeldOutSteps(
        logits_NO.float().softmax(-1)[:, CORRECT].numpy(),
        labels_BS[labelled_BS],
        ~wrong_BS[labelled_BS].astype(bool),
        kinds_BS[labelled_BS],
        np.nonzero(labelled_BS)[0],
    )


def _logits(prediction: EvalPrediction) -> tuple[Any, Any]:
    """The logits of the classes, and of the value or None."""
    logits = prediction.predictions
    return logits if isinstance(logits, tuple) else (logits, None)


def value_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """The Brier score of the value of held-out steps against their shares of right rollouts, if there is a value."""
    _, value_BS = _logits(prediction)
    labels_BS, _, _, counts_BS2 = prediction.label_ids
    counted_BS = (labels_BS != IGNORE) & (counts_BS2[..., 1] > 0)
    if value_BS is None or not counted_BS.any():
        return {}
    right_N, all_N = counts_BS2[counted_BS].T
    values_N = torch.tensor(value_BS[counted_BS]).float().sigmoid().numpy()
    return {"value_brier": brier(values_N, right_N / all_N)}


def held_out_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Metrics of held-out steps against their labels (fused, not ground truth): AUROC, accuracy, calibration error and
    Brier score of `correct`, the recall of wrong steps per error kind, and `value_metrics`."""
    steps = held_out_steps(prediction)
    rewards, targets, right, kinds = steps.rewards, steps.targets, steps.right, steps.kinds
    found = {
        f"found_{OUTPUTS[kind]}": float(np.mean(rewards[of_kind] < 0.5))
        for kind in range(CORRECT + 1, len(OUTPUTS))
        if (of_kind := (kinds == kind) & ~right).any()
    }
    return {
        "step_count": len(rewards),
        "step_auroc": auroc(rewards, right),
        "step_accuracy": float(np.mean((rewards >= 0.5) == right)),
        "step_ece": calibration_error(rewards, targets),
        "step_brier": brier(rewards, targets),
        **found,
        **value_metrics(prediction),
    }
