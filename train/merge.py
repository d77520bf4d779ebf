"""Merge LoRA adapters into their backbone: one checkpoint that servers and other programs can load.

python -m train.merge --reward_model runs/prm_lora --run runs/prm_merged
"""

from __future__ import annotations

import logging

from train.reward.config import MergeConfig
from vlprm.errors import UserError
from vlprm.model.lora import holds_adapters
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.runs.config import run

log = logging.getLogger(__name__)


def main(config: MergeConfig) -> None:
    """Run `vlprm merge`."""
    if config.run.exists():
        raise UserError(f"{config.run} already exists; choose another folder, or remove it")
    if not holds_adapters(config.reward_model):
        raise UserError(f"{config.reward_model} has no adapters to merge; load it directly")
    checkpoint = load_reward_model(config.reward_model)  # merges the adapters
    save_reward_model(checkpoint, config.run, checkpoint.config)
    log.info("wrote %s", config.run)


if __name__ == "__main__":
    run(main, MergeConfig)
