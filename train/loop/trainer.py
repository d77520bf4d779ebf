"""transformers' Trainer with planned batches and a loss normalised over the global batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import PreTrainedModel, Trainer, TrainingArguments

from train.policy.config import DpoConfig, SftConfig
from train.reward.config import PrmConfig
from vlprm.errors import UserError

Parameters = Callable[[Any], list[dict[str, Any]]]  # a model's parameter groups for AdamW


class BatchTrainer(Trainer, ABC):  # type: ignore[misc]
    """Trainer whose dataset items are whole batches. It overrides `compute_loss`, because the stock one passes a single
    label tensor, and the count of items per global batch, because a batch has several denominators: its `totals`."""

    optimizer: torch.optim.Optimizer | None

    def __init__(self, parameters: Parameters, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.parameters = parameters
        if self.is_fsdp_enabled:
            self._set_up_shards()

    @abstractmethod
    def batch_loss(self, model: Any, batch: dict[str, Any], totals: Tensor) -> tuple[Tensor, Any]:
        """The loss of a batch, divided by the global batch's `totals`, and the outputs for metrics."""

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
        totals = torch.stack([batch["totals"] for batch in batch_samples]).sum(0).to(device)
        return self.accelerator.reduce(totals, "sum")  # type: ignore[no-any-return]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a batch, scaled for the average over devices. UserError if the loss is not finite."""
        # A held-out batch is normalised by its own totals, independent of the number of processes.
        totals = num_items_in_batch if model.training and num_items_in_batch is not None else inputs["totals"]
        assert not model.training or totals.any(), "every batch has labels"
        loss, outputs = self.batch_loss(model, inputs, totals)
        if not loss.isfinite():
            raise UserError(f"the loss is {float(loss)} in the batch of {', '.join(inputs['ids'])}; check its rows")
        if model.training:  # gradients are averaged over devices afterwards
            loss = loss * self.accelerator.num_processes
        # The Trainer would gather every output that it gets.
        return (loss, outputs) if return_outputs else loss

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
        model.load_state_dict({**model.state_dict(), **stored.state_dict()})  # the reference is not stored


def training_arguments(config: PrmConfig | SftConfig | DpoConfig, steps: int, **more: Any) -> TrainingArguments:
    """The Trainer's arguments for a config and its number of optimizer steps."""
    return TrainingArguments(
        output_dir=str(config.run),
        num_train_epochs=1,  # the planned batches already contain all epochs
        train_sampling_strategy="sequential",
        per_device_train_batch_size=1,  # a dataset item is a whole batch
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=config.accumulate,
        activation_checkpointing=config.checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},  # re-entrant needs inputs with gradients
        # With checkpointing, the Trainer would otherwise require a gradient of every trained parameter at every step;
        # some families have layers whose output is not used.
        ddp_find_unused_parameters=True,
        bf16=config.bfloat16,
        use_cpu=config.bfloat16 and not torch.accelerator.is_available(),  # the Trainer would refuse bfloat16 there
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup,  # below 1: a share of all steps
        max_grad_norm=1.0,
        logging_steps=max(1, min(20, steps // 10)),
        save_strategy="steps",
        save_steps=config.checkpoint_every,
        save_total_limit=1,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to=config.report_to,
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=config.seed,
        **more,
    )
