"""Merge LoRA adapters into their backbone, or the shards of a checkpoint in the middle of a run: one checkpoint that
servers and other programs can load.

python -m train.merge --reward_model runs/prm_lora --run runs/prm_merged
python -m train.merge --reward_model runs/prm/checkpoint-400 --run runs/prm_400
"""

from __future__ import annotations

import logging
from dataclasses import replace

from train.reward.config import MergeConfig
from train.reward.model import holds_shards, model_of_shards
from vlprm.errors import UserError
from vlprm.model.lora import holds_adapters, origin
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.runs.config import run

log = logging.getLogger(__name__)


def main(config: MergeConfig) -> None:
    """Run `vlprm merge`."""
    if config.run.exists():
        raise UserError(f"{config.run} already exists; choose another folder, or remove it")
    if holds_shards(config.reward_model):
        checkpoint, declared = model_of_shards(config.reward_model)
    elif holds_adapters(config.reward_model):
        checkpoint = load_reward_model(config.reward_model)  # merges the adapters
        declared = checkpoint.config
    else:
        raise UserError(f"{config.reward_model} has neither adapters nor shards to merge; load it directly")
    if reference := declared.provenance.get("reference"):
        known = origin("reference", reference, config.run)
        declared = replace(declared, provenance={**declared.provenance, **known})
    save_reward_model(checkpoint, config.run, declared)
    log.info("wrote %s", config.run)


if __name__ == "__main__":
    run(main, MergeConfig)
