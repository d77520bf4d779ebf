"""LoRA adapters on the text layers of a reward model, through peft.

A LoRA checkpoint's folder holds the adapters and the head, and names the backbone; `train.merge` makes it a full model.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vlprm.errors import UserError
from vlprm.model.loading import checkpoint_folder
from vlprm.runs.folder import fingerprint

ADAPTER_FILE = "adapter_config.json"
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
    return (folder / ADAPTER_FILE).is_file()


@contextmanager
def without_adapters(model: Any) -> Iterator[None]:
    """Turn the model's adapters off for a while."""
    layers = _adapter_layers(model)
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def has_adapters(model: Any) -> bool:
    """Whether a loaded model has adapters that are not merged."""
    return bool(_adapter_layers(model))


def _adapter_layers(model: Any) -> list[Any]:
    if not any("lora_" in name for name, _ in model.named_parameters()):
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def origin(role: str, name: str, run: Path) -> dict[str, str]:
    """What identifies a model that a run's weights need, by its `role` (backbone, reference): its path from the run's
    folder, and a hash of its files."""
    folder = checkpoint_folder(name)
    return {f"{role}_from_here": os.path.relpath(folder, run), f"{role}_hash": fingerprint(folder)}


def backbone_of(folder: Path, provenance: dict[str, Any]) -> Path:
    """The backbone of a folder's adapters. UserError if it is not there, or has other files than those that they were
    trained on."""
    path = folder / ADAPTER_FILE
    name = str(json.loads(path.read_text())["base_model_name_or_path"])
    said = f"the adapters in {folder} belong to the backbone {name}"
    return found("backbone", name, folder, provenance, said, f"base_model_name_or_path in {path}")


def found(role: str, name: str, folder: Path, provenance: dict[str, Any], said: str, field: str) -> Path:
    """The folder of the model that the weights in `folder` need: where it was, or where it is relative to them (see
    `origin`). UserError, which begins with what is `said` of it, if it is not there or has other files than those that
    the weights were trained on; `field` can name another place."""
    here = provenance.get(f"{role}_from_here")
    replaced = False
    for place in [name] if here is None else [name, str(folder / here)]:
        try:
            known = checkpoint_folder(place)
        except UserError:
            continue
        if provenance.get(f"{role}_hash") in (None, fingerprint(known)):
            return known
        replaced = True
    fault = "has other files than those that they were trained on" if replaced else "is not there"
    raise UserError(f"{said}, which {fault}; restore it, or name its folder as {field}")


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
