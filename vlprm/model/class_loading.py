"""Load a checkpoint's weights into a class of ours that extends its backbone's class."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
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
from vlprm.model.checkpoint_config import Bits
from vlprm.model.families import Family
from vlprm.model.tree_attention import use_attention


@dataclass(frozen=True)
class ClassLoader:
    """Acts as the model class of `load_checkpoint`, and raises on missing keys, which transformers only prints.
    `shapes_only`: the model has shapes but no weights, on the device `meta`."""

    class_of: Callable[[Any], type[PreTrainedModel]]
    family: Family
    attention: Attention
    bits: Bits
    new_head: bool = False
    reads_surprise: bool = False
    extra_outputs: tuple[str, ...] = ()
    shapes_only: bool = False
    reads_lookback: bool = False

    def from_pretrained(self, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
        config = AutoConfig.from_pretrained(folder)
        if self.new_head:
            config.surprise, config.extra_outputs = self.reads_surprise, list(self.extra_outputs)
            config.lookback = self.reads_lookback
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
