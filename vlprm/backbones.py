"""Load a checkpoint folder: model, processor, profile. Errors name the folder and the fix."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from vlprm.inputs import InputBuilder
from vlprm.profile import Profile, load_profile

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BUILTIN = {"builtin/policy": "policy", "builtin/backbone": "backbone"}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model and the builder of its inputs."""

    model: Any
    inputs: InputBuilder
    profile: Profile


def checkpoint_folder(name: str | Path) -> Path:
    """The folder of a checkpoint: `builtin/policy`, `builtin/backbone`, or a path. ValueError if it is not there."""
    if str(name) in BUILTIN:
        return Path(str(files("vlprm.builtin") / BUILTIN[str(name)]))
    folder = Path(name)
    if not folder.is_dir():
        raise ValueError(f"no checkpoint folder {folder}; give a folder, or one of {', '.join(BUILTIN)}")
    return folder


def placement(device: str, dtype: str) -> tuple[str, torch.dtype]:
    """Where and in what a model computes, by the names that configs give them: `auto` is the GPU where there is one.

    ValueError names what this machine has.
    """
    gpus = torch.cuda.device_count()
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    known = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus))]
    if device not in known:
        raise ValueError(f"no device {device!r} on this machine; give auto or one of {', '.join(known)}")
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; give one of {', '.join(DTYPES)}")
    return device, DTYPES[dtype]


def load_policy(name: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Checkpoint:
    """An image-text-to-text model with its processor and profile, in evaluation mode."""
    folder = checkpoint_folder(name)
    return load_checkpoint(folder, AutoModelForImageTextToText, device, dtype)


def load_inputs(folder: Path) -> InputBuilder:
    """The builder of a checkpoint's inputs, without its weights."""
    profile = load_profile(folder)
    try:
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(_unloadable(folder, error)) from error
    return InputBuilder(processor, profile)


def load_checkpoint(folder: Path, model_class: Any, device: str, dtype: torch.dtype) -> Checkpoint:
    profile = load_profile(folder)
    try:
        _refuse_unknown_model(folder)
        model = model_class.from_pretrained(folder, dtype=dtype).to(device).eval()
    except (OSError, SafetensorError, KeyError) as error:
        raise ValueError(_unloadable(folder, error)) from error
    return Checkpoint(model, load_inputs(folder), profile)


def _unloadable(folder: Path, error: Exception) -> str:
    return f"checkpoint {folder} cannot be loaded ({' '.join(str(error).split())}); copy or train it again"


def _refuse_unknown_model(folder: Path) -> None:
    try:
        known = type(AutoConfig.from_pretrained(folder)) in AutoModelForImageTextToText._model_mapping
    except ValueError:  # what transformers says of a model_type that it does not know, or of none
        known = False
    if not known:
        raise ValueError(
            f"{folder / 'config.json'} names no image-text-to-text model of transformers; correct its model_type"
        )
