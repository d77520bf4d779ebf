"""transformers' Trainer with our batches and loss, and the metrics of held-out steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.utils.data import Dataset
from transformers import EvalPrediction, PreTrainedModel, Trainer

from train.reward.batches import batch_rows, model_inputs
from train.reward.config import LossConfig
from train.reward.data import Example, LabelledRow, labelled_row
from train.reward.losses import IGNORE, training_loss
from vlprm.errors import UserError
from vlprm.metrics import auroc, calibration_error
from vlprm.model.inputs import InputBuilder
from vlprm.model.reward_model import CORRECT, OUTPUTS


class Batches(Dataset[list[LabelledRow]]):
    """Planned batches, turned into model inputs on demand. An item is a whole batch, because batches are sized by
    tokens, not by rows. `left_out`: numbers of solutions and rows that are not trained on, by cause."""

    def __init__(
        self,
        batches: Sequence[Sequence[Example]],
        inputs: InputBuilder,
        loss: LossConfig,
        weights: dict[tuple[str, bool], float],
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        self.batches, self.inputs, self.loss, self.weights = batches, inputs, loss, weights
        self.left_out = left_out

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> list[LabelledRow]:
        return [labelled_row(example, self.inputs, self.loss, self.weights) for example in self.batches[index]]

    def collate(self, items: list[list[LabelledRow]]) -> dict[str, Any]:
        """Tensors of one item (see `batch_rows`), and the `ids` of its problems."""
        (rows,) = items
        return {**batch_rows(rows, self.inputs), "ids": [row.id for row in rows]}


class StepTrainer(Trainer):  # type: ignore[misc]
    """Trainer with our loss. It overrides `compute_loss`, because the stock one passes a single label tensor, and the
    count of items per global batch, because steps have weights and pairs count too. `parameters` makes AdamW's
    parameter groups."""

    optimizer: torch.optim.Optimizer | None

    def __init__(self, loss: LossConfig, parameters: Callable[[Any], list[dict[str, Any]]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step_loss, self.parameters = loss, parameters
        if self.is_fsdp_enabled:
            self._set_up_shards()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Create AdamW when the Trainer asks for it: FSDP rejects one made earlier, and DeepSpeed would replace it with
        one of a single learning rate."""
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(self.parameters(self.model if model is None else model))
        return self.optimizer

    def _set_up_shards(self) -> None:
        """accelerate's defaults would keep whole gradients between the batches of an optimizer step, add gradients of
        different devices in bfloat16, and round the log-probabilities of verdicts to bfloat16."""
        self.accelerator.gradient_state.plugin_kwargs["sync_each_batch"] = True
        if self.accelerator.mixed_precision == "bf16":
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32
            )

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Tensor:
        totals_4 = torch.stack([batch["totals"] for batch in batch_samples]).sum(0).to(device)
        return self.accelerator.reduce(totals_4, "sum")  # type: ignore[no-any-return]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a batch, scaled for the average over devices. UserError if the loss is not finite."""
        outputs = model(**model_inputs(inputs))
        # A held-out batch is normalised by its own totals, independent of the number of processes.
        totals_4 = num_items_in_batch if model.training and num_items_in_batch is not None else inputs["totals"]
        assert not model.training or totals_4.any(), "every batch has labels"
        loss = training_loss(outputs, inputs, totals_4, self.step_loss)
        if not loss.isfinite():
            raise UserError(f"the loss is {float(loss)} in the batch of {', '.join(inputs['ids'])}; check its rows")
        if model.training:  # gradients are averaged over devices afterwards
            loss = loss * self.accelerator.num_processes
        # Metrics need only the logits; the Trainer would also gather every other output.
        return (loss, {"logits": outputs.logits}) if return_outputs else loss

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A sharded model's checkpoints have its shards, which `_save_optimizer_and_scheduler` writes. At the end of
        training, its weights are gathered into one folder."""
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)
        elif not _internal_call:
            self._save(output_dir, self.accelerator.get_state_dict(self.model))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Weights gathered from shards contain tied weights under both names; store them under one."""
        if state_dict is not None:
            tied = getattr(self.model, "all_tied_weights_keys", {})
            state_dict = {name: weight for name, weight in state_dict.items() if name not in tied}
        super()._save(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The Trainer matches weights by the model's names and silently skips the rest. Some have other names on disk
        (Qwen2.5-VL's text layers and head), and would keep their values from before the run."""
        model = model or self.model
        if self.is_fsdp_enabled or not isinstance(model, PreTrainedModel):  # sharded, or adapters: not by these names
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        stored = type(model).from_pretrained(resume_from_checkpoint, config=model.config, dtype=model.dtype)
        model.load_state_dict(stored.state_dict())


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
    labels_BS, kinds_BS, wrong_BS = prediction.label_ids
    labelled_BS = labels_BS != IGNORE
    logits_NO = torch.tensor(prediction.predictions[labelled_BS])
    return HeldOutSteps(
        logits_NO.float().softmax(-1)[:, CORRECT].numpy(),
        labels_BS[labelled_BS],
        ~wrong_BS[labelled_BS].astype(bool),
        kinds_BS[labelled_BS],
        np.nonzero(labelled_BS)[0],
    )


def held_out_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Metrics of held-out steps against their labels (fused, not ground truth): AUROC, accuracy, calibration error and
    Brier score of `correct`, and the recall of wrong steps per error kind."""
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
        "step_brier": float(np.mean((rewards - targets) ** 2)),
        **found,
    }
