"""LoRA adapters on the text layers of a reward model, through peft.

A LoRA checkpoint's folder holds the adapters and the head, and names the backbone; `train.merge` makes it a full model.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import torch

from vlprm.errors import UserError
from vlprm.model.loading import checkpoint_folder
from vlprm.runs.folder import fingerprint

FILE_NAME = "adapter_config.json"
TEXT_LAYERS = "language_model.layers."


def add_adapters(model: Any, rank: int, backbone: str, seed: int) -> Any:
    """Add LoRA adapters of this rank to all linear layers of the text layers; only they and a step head are trained.
    `seed` sets their initial weights. UserError if peft is not installed."""
    peft = _peft()
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=rf".*{re.escape(TEXT_LAYERS)}.*\.({'|'.join(_linear_layers(model))})",
        # Without this, peft would guess which layer is the head, or freeze it.
        modules_to_save=["score"] if hasattr(model, "score") else None,
    )
    with torch.random.fork_rng(list(range(torch.cuda.device_count()))):
        torch.manual_seed(seed)
        adapted = peft.get_peft_model(model, config)
    folder = Path(backbone)
    adapted.peft_config["default"].base_model_name_or_path = str(folder.resolve()) if folder.is_dir() else backbone
    return adapted


def _linear_layers(model: Any) -> list[str]:
    """Names of the linear layers within a text layer. Families with linear attention have more than those that end in
    `_proj`."""
    names = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    return sorted({name.rpartition(".")[2] for name in names if TEXT_LAYERS in name})


def holds_adapters(folder: Path) -> bool:
    """Whether the folder holds adapters, and not a full model."""
    return (folder / FILE_NAME).is_file()


def backbone_provenance(backbone: str, run: Path) -> dict[str, str]:
    """What identifies the backbone of a run's adapters: its path from the run's folder, and a hash of its files."""
    folder = checkpoint_folder(backbone)
    return {"backbone_from_here": os.path.relpath(folder, run), "backbone_hash": fingerprint(folder)}


def backbone_of(folder: Path, provenance: dict[str, Any]) -> Path:
    """The backbone of a folder's adapters: where it was, or where it is relative to the adapters. UserError if it is
    not there, or has other files than those that the adapters were trained on."""
    path = folder / FILE_NAME
    name = str(json.loads(path.read_text())["base_model_name_or_path"])
    places = [name, str(folder / provenance["backbone_from_here"])] if "backbone_from_here" in provenance else [name]
    replaced = False
    for place in places:
        try:
            found = checkpoint_folder(place)
        except UserError:
            continue
        if provenance.get("backbone_hash") in (None, fingerprint(found)):
            return found
        replaced = True
    fault = "has other files than those that they were trained on" if replaced else "is not there"
    raise UserError(
        f"the adapters in {folder} belong to the backbone {name}, which {fault}; restore it, or name its folder as"
        f" base_model_name_or_path in {path}"
    )


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
