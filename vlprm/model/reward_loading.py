"""Load and save step-reward models: a backbone's weights, a head, adapters, quantisation."""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, BitsAndBytesConfig, PreTrainedModel
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.core_model_loading import WeightRenaming

from vlprm.errors import UserError
from vlprm.model.attention import Attention
from vlprm.model.checkpoint_config import Bits, CheckpointConfig, Head
from vlprm.model.families import Family
from vlprm.model.image_limits import set_limits
from vlprm.model.loading import Checkpoint, checkpoint_config_of, checkpoint_folder, load_checkpoint, load_inputs
from vlprm.model.lora import backbone_of, holds_adapters, with_adapters
from vlprm.model.reward_model import reward_class, verdict_class
from vlprm.model.tree_attention import use_attention

log = logging.getLogger(__name__)


def load_reward_model(
    name: str | Path,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    new_head: Head | None = None,
    reads_surprise: bool = False,
    verdicts: tuple[str, str] | None = None,
    bits: Bits = 16,
    attention: Attention = Attention(),
) -> Checkpoint:
    """Load a reward model from its folder, or make one from a backbone's folder with `new_head`. A folder that has this
    head keeps it.

    A new step head has zero weights (all outputs equally likely) and, with `reads_surprise`, two more features; a
    verdict head compares the tokens `verdicts`. `bits` below 16 quantises the text layers with bitsandbytes and keeps
    LoRA adapters separate; with 16 bits they are merged. On the device `meta`, the model has shapes but no weights:
    they are neither downloaded nor read, and `bits` has no effect.

    UserError if weights are missing, if the folder has no reward head and `new_head` is not given, if `new_head` would
    replace a trained head, or if a verdict is not a single token.
    """
    shapes_only = device == "meta"
    folder = checkpoint_folder(name, weights=not shapes_only)
    checkpoint_config = checkpoint_config_of(folder)
    if new_head is None and checkpoint_config.head == "none":
        raise UserError(f"{folder} has no reward head (vlprm.json says head: none); train one with train.prm")
    if new_head is None and holds_adapters(folder):
        return _of_adapters(folder, checkpoint_config, device, dtype, bits, attention)
    if new_head is not None:
        refuse_to_drop_head(folder, checkpoint_config, new_head, reads_surprise, verdicts)
    is_new = new_head is not None and checkpoint_config.head != new_head
    checkpoint_config = replace(
        checkpoint_config, head=new_head or checkpoint_config.head, verdicts=verdicts or checkpoint_config.verdicts
    )
    inputs = load_inputs(folder, checkpoint_config)
    if checkpoint_config.head == "verdict":
        right, wrong = inputs.verdict_ids
        loader = _Loader(lambda backbone: verdict_class(backbone, right, wrong), inputs.family, attention, bits)
    else:
        loader = _Loader(reward_class, inputs.family, attention, bits, is_new, reads_surprise)
    loader = replace(loader, shapes_only=shapes_only)
    return load_checkpoint(folder, loader, device, dtype, inputs)


def refuse_to_drop_head(
    folder: Path,
    checkpoint_config: CheckpointConfig,
    head: Head,
    reads_surprise: bool,
    verdicts: tuple[str, str] | None,
) -> None:
    """UserError if training this head from the folder would drop or change a head that is trained already."""
    if holds_adapters(folder):
        raise UserError(
            f"{folder} holds adapters, which are no backbone; merge them with train.merge, and give the result"
        )
    trained = checkpoint_config.head
    if trained == "none":
        return
    if trained == "step" and head != "step":
        raise UserError(f"{folder} has a trained step head, which head: {head} would drop; set head: step")
    if trained == "step" and (surprise := _reads_surprise(folder)) != reads_surprise:
        raise UserError(f"the trained head of {folder} has surprise: {str(surprise).lower()}; set the same")
    if trained == head == "verdict" and verdicts not in (None, checkpoint_config.verdicts):
        raise UserError(
            f"{folder} was trained with the verdicts {' and '.join(checkpoint_config.verdicts)}; set the same"
        )
    log.info("%s: its trained %s head is kept", folder, trained)


def _reads_surprise(folder: Path) -> bool:
    return bool(json.loads((folder / "config.json").read_text()).get("surprise", False))


def _of_adapters(
    folder: Path,
    checkpoint_config: CheckpointConfig,
    device: str,
    dtype: torch.dtype,
    bits: Bits,
    attention: Attention,
) -> Checkpoint:
    assert checkpoint_config.head != "none"
    backbone = backbone_of(folder, checkpoint_config.provenance)
    surprised = checkpoint_config.provenance.get("surprise", False)
    bare = load_reward_model(
        backbone, "cpu", dtype, checkpoint_config.head, surprised, checkpoint_config.verdicts, bits, attention
    )
    model = with_adapters(bare.model, folder, merged=bits == 16).to(device).eval()
    return Checkpoint(model, load_inputs(backbone, checkpoint_config))


def save_reward_model(checkpoint: Checkpoint, folder: Path, checkpoint_config: CheckpointConfig) -> None:
    """Save a transformers folder with `vlprm.json`; its image limits also go into the saved processor. `vlprm.json` is
    written last, so a folder that has one is complete."""
    checkpoint.model.save_pretrained(folder)
    processor = copy.deepcopy(checkpoint.inputs.processor)
    set_limits(processor, checkpoint.inputs.family, checkpoint_config)
    processor.save_pretrained(folder)
    checkpoint_config.save(folder)


@dataclass(frozen=True)
class _Loader:
    """Acts as the model class of `load_checkpoint`, and raises on missing keys, which transformers only prints."""

    class_of: Callable[[Any], type[PreTrainedModel]]
    family: Family
    attention: Attention
    bits: Bits
    new_head: bool = False
    reads_surprise: bool = False
    shapes_only: bool = False

    def from_pretrained(self, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
        config = AutoConfig.from_pretrained(folder)
        if self.new_head:
            config.surprise = self.reads_surprise
        backbone = AutoModelForImageTextToText._model_mapping[type(config)]
        model_class = self.class_of(backbone)
        if self.shapes_only:
            with torch.device("meta"):
                bare: PreTrainedModel = model_class._from_config(config, dtype=dtype)
            use_attention(bare, self.attention, can_pack=not self.family.cannot_pack)
            return bare
        _keep_key_names(model_class, backbone, config.model_type, self.family)
        model, report = model_class.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below
            quantization_config=self._quantization(),
        )
        if report["mismatched_keys"]:
            name, found, wanted = min(report["mismatched_keys"])
            raise UserError(
                f"checkpoint {folder} has {name} of shape {tuple(found)}, not {tuple(wanted)}; train it again"
            )
        expected = {"score.weight"} if self.new_head else set()
        if missing := set(report["missing_keys"]) - expected:
            raise UserError(f"checkpoint {folder} lacks {len(missing)} weights, such as {min(missing)}; copy it again")
        if self.new_head:
            nn.init.zeros_(model.score.weight)
            # transformers saves with the renamings that loading applied; a new head was not among the loaded keys.
            model._weight_conversions = [*(model._weight_conversions or []), *_head_renaming(self.family)]
        use_attention(model, self.attention, can_pack=not self.family.cannot_pack)
        return model

    def _quantization(self) -> BitsAndBytesConfig | None:
        if self.bits == 16:
            return None
        if find_spec("bitsandbytes") is None:
            raise UserError(f"loading in {self.bits} bits needs bitsandbytes; pip install 'vlprm[quantized]'")
        kept = ["score", "lm_head", f"model.{self.family.vision}", f"model.{self.family.projector}"]
        # 4 bits as in QLoRA: NF4 weights, multiplied in bfloat16. The defaults are FP4 and float32.
        return BitsAndBytesConfig(
            load_in_4bit=self.bits == 4,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
            load_in_8bit=self.bits == 8,
            llm_int8_skip_modules=kept,
        )


def _keep_key_names(
    model_class: type[PreTrainedModel], backbone: type[PreTrainedModel], model_type: str, family: Family
) -> None:
    """Register the key renamings of the backbone and the head for our class.

    transformers renames keys of older checkpoints by class name. Our class would get none, or those of its own class
    with the same name, and would miss the language model's weights.
    """
    known = get_checkpoint_conversion_mapping(backbone.__name__) or get_checkpoint_conversion_mapping(model_type)
    known = [*(known or []), *_head_renaming(family)]
    if known:
        register_checkpoint_conversion_mapping(model_class.__name__, known, overwrite=True)


def _head_renaming(family: Family) -> list[WeightRenaming]:
    stored = family.stored_head
    return [] if stored == "score" else [WeightRenaming(rf"^{re.escape(stored)}\.", "score.")]
