"""The model that a training config asks for: its parts, what of it is trained and at which rates, and its weights in a
sharded checkpoint."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from transformers import PreTrainedModel

from train.reward.checks import with_overrides
from train.reward.config import PrmConfig
from vlprm.errors import UserError
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.families import Family
from vlprm.model.loading import Checkpoint, checkpoint_folder, freeze, load_inputs, part_of
from vlprm.model.lora import add_adapters
from vlprm.model.reward_loading import load_reward_model, reference_name
from vlprm.runs.config import parse

log = logging.getLogger(__name__)

SHARDS = "pytorch_model_fsdp_0"  # accelerate's name of the folder in which each process writes its shard


def new_model(config: PrmConfig, shapes_only: bool = False) -> Checkpoint:
    """The backbone with a new reward head or its own, and the config's pixel limits and prompt template. With
    `shapes_only`, its weights are neither downloaded nor read."""
    checkpoint = load_reward_model(
        config.backbone,
        device="meta" if shapes_only else "cpu",
        new_head=config.head,
        reads_surprise=config.surprise,
        verdicts=config.verdicts,
        bits=config.bits,
        attention=config.attention,
        extra_outputs=config.loss.extra_outputs,
        to_adapt=config.lora_rank > 0,
        reads_lookback=config.lookback,
    )
    checkpoint_config = with_overrides(checkpoint.config, config)
    if config.head == "implicit":
        checkpoint.model.beta = checkpoint_config.beta
    log.info("questions are asked with the prompt template %s", checkpoint_config.prompt_template)
    if checkpoint_config == checkpoint.config:
        return checkpoint
    folder = checkpoint_folder(config.backbone, weights=not shapes_only)
    return Checkpoint(checkpoint.model, load_inputs(folder, checkpoint_config))


def trainable(config: PrmConfig, checkpoint: Checkpoint) -> Any:
    """Freeze the model's untrained parts, and add LoRA adapters if `lora_rank` is set."""
    if config.lora_rank:
        return add_adapters(checkpoint.model, config.lora_rank, config.backbone, config.seed)
    model = checkpoint.model
    freeze(model, checkpoint.inputs.family, config.freeze)
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    if config.head == "step" and not config.loss.critique and not tied:
        # No loss reaches it, but ZeRO would store its moments and apply weight decay.
        model.lm_head.requires_grad_(False)
    return model


def parameter_groups(config: PrmConfig, family: Family, model: Any) -> list[dict[str, Any]]:
    """AdamW's parameter groups, one per learning rate: text layers and projector, vision tower, step head."""
    rates = {
        "text": config.learning_rate,
        "vision": config.vision_learning_rate or config.learning_rate,
        "head": config.head_learning_rate,
    }
    trained: dict[str, list[Tensor]] = {group: [] for group in rates}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_vision = part_of(name, family) == "vision"
            trained["head" if "score." in name else "vision" if is_vision else "text"].append(parameter)
    return [
        {
            "params": parameters,
            "lr": rates[group],
            "weight_decay": config.weight_decay,
            "betas": (0.9, config.beta2),
        }
        for group, parameters in trained.items()
        if parameters
    ]


def holds_shards(folder: Path) -> bool:
    """Whether the folder is a checkpoint in the middle of a sharded run."""
    return (folder / SHARDS).is_dir()


def model_of_shards(folder: Path) -> tuple[Checkpoint, CheckpointConfig]:
    """The model of a checkpoint in the middle of a sharded run, on the CPU and with merged adapters, and what its
    `vlprm.json` declares. `folder` lies in the run's folder, whose config says what the model is. UserError if the two
    do not go together."""
    if not (recipe := folder.parent / "config.yaml").is_file():
        raise UserError(f"{recipe} is missing, which says what model the shards in {folder} belong to; restore it")
    config = parse(PrmConfig, ["--config", str(recipe)])
    checkpoint = new_model(config)
    model = trainable(config, checkpoint)
    _read_shards(folder, _stored_weights(model))
    made = Checkpoint(model.merge_and_unload() if config.lora_rank else model, checkpoint.inputs)
    provenance = {**provenance_of(config), "optimizer_steps": int(folder.name.rpartition("-")[2])}
    return made, replace(checkpoint.config, aggregation=config.aggregation, provenance=provenance)


def provenance_of(config: PrmConfig) -> dict[str, Any]:
    """What `vlprm.json` says of a model's training, and what loading its adapters and asking for critiques need."""
    return {
        "backbone": config.backbone,
        "surprise": config.surprise,
        "lookback": config.lookback,
        "extra_outputs": config.loss.extra_outputs,
        "critiques": config.loss.critique > 0,
        **({"reference": reference_name(config.backbone)} if config.head == "implicit" else {}),
        "seed": config.seed,
    }


def _stored_weights(model: Any) -> dict[str, Tensor]:
    """The weights that a sharded checkpoint of the model has, by their names there. They share the model's memory."""
    if isinstance(model, PreTrainedModel):
        tied = getattr(model, "all_tied_weights_keys", {})
        return {name: weight for name, weight in model.state_dict().items() if name not in tied}
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model))


def _read_shards(folder: Path, weights: dict[str, Tensor]) -> None:
    """Overwrite the weights by those of a sharded checkpoint."""
    try:
        load({"model": weights}, checkpoint_id=folder / SHARDS, no_dist=True)
    except (CheckpointException, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"the shards in {folder} are not those of the model of {folder.parent / 'config.yaml'} ({reason}); restore"
            " the config, or take another checkpoint"
        ) from error
