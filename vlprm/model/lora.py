"""Low-rank adapters on the text layers of a reward model, through peft. The folder of such a model holds the adapters
and the head, and names the backbone that they belong to; `merged` makes a model of its own of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from vlprm.errors import UserError

FILE_NAME = "adapter_config.json"


def add_adapters(model: Any, rank: int, backbone: str, seed: int) -> Any:
    """The model with adapters of this rank on all linear layers of its text layers; they and a step head are all that
    is trained. They start from random weights that are the same for the same seed. UserError where peft is not
    installed."""
    peft = _peft()
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=r".*language_model\.layers\..*_proj",
        # Named here: peft would otherwise guess which layer is a head, or leave it frozen.
        modules_to_save=["score"] if hasattr(model, "score") else None,
    )
    with torch.random.fork_rng(list(range(torch.cuda.device_count()))):
        torch.manual_seed(seed)
        adapted = peft.get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = backbone
    return adapted


def backbone_of(folder: Path) -> str | None:
    """The backbone that a folder's adapters belong to; None where it holds a whole model."""
    path = folder / FILE_NAME
    return str(json.loads(path.read_text())["base_model_name_or_path"]) if path.is_file() else None


def with_adapters(model: Any, folder: Path, merged: bool = True) -> Any:
    """A backbone's model with a folder's adapters and head, merged into it; or beside it, as weights of few bits would
    be rounded once more."""
    adapted = _peft().PeftModel.from_pretrained(model, str(folder))
    return adapted.merge_and_unload() if merged else adapted.get_base_model()


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UserError("adapters need peft; pip install 'vlprm[lora]'") from error
    return peft
