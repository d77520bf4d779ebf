"""LoRA adapters on the text layers of a reward model, through peft.

A LoRA checkpoint's folder holds the adapters and the head, and names the backbone; `train.merge` makes it a full model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from vlprm.errors import UserError

FILE_NAME = "adapter_config.json"


def add_adapters(model: Any, rank: int, backbone: str, seed: int) -> Any:
    """Add LoRA adapters of this rank to all linear layers of the text layers; only they and a step head are trained.
    `seed` sets their initial weights. UserError if peft is not installed."""
    peft = _peft()
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=_linear_layers(model),
        # Without this, peft would guess which layer is the head, or freeze it.
        modules_to_save=["score"] if hasattr(model, "score") else None,
    )
    with torch.random.fork_rng(list(range(torch.cuda.device_count()))):
        torch.manual_seed(seed)
        adapted = peft.get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = backbone
    return adapted


def _linear_layers(model: Any) -> str:
    """A pattern for the names of all linear layers of the text layers. Their names differ between families."""
    names = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    kinds = {name.rsplit(".", 1)[-1] for name in names if "language_model.layers." in name}
    return rf".*language_model\.layers\..*\.({'|'.join(sorted(kinds))})"


def backbone_of(folder: Path) -> str | None:
    """The backbone of a folder's adapters; None if the folder holds a full model."""
    path = folder / FILE_NAME
    return str(json.loads(path.read_text())["base_model_name_or_path"]) if path.is_file() else None


def with_adapters(model: Any, folder: Path, merged: bool = True) -> Any:
    """The backbone's model with a folder's adapters and head. Quantised weights need `merged=False`, because merging
    would round them again."""
    adapted = _peft().PeftModel.from_pretrained(model, str(folder))
    return adapted.merge_and_unload() if merged else adapted.get_base_model()


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UserError("adapters need peft; pip install 'vlprm[lora]'") from error
    return peft
