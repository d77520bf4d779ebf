"""Load a checkpoint folder: model, processor and `vlprm.json`. Errors name the folder and the fix."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from vlprm.errors import UserError, hub_refusal
from vlprm.model.checkpoint_config import CHECKPOINT_FILE, CheckpointConfig, Part, load_checkpoint_config
from vlprm.model.families import Family, family_of
from vlprm.model.image_limits import described, limits_of
from vlprm.model.inputs import InputBuilder
from vlprm.prompts import TEMPLATES
from vlprm.runs.folder import CHECKPOINT_FILES
from vlprm.zoom.boxes import DIALECTS, NO_DIALECT

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TAGGED = CheckpointConfig(prompt_template="tagged_steps@1")
BUILTIN = {"builtin/policy": "policy", "builtin/backbone": "backbone"}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model and the builder of its inputs."""

    model: Any
    inputs: InputBuilder

    @property
    def config(self) -> CheckpointConfig:
        """The checkpoint's declared properties."""
        return self.inputs.config


def protocol_of(name: str | Path) -> tuple[str, str]:
    """The protocol and the checkpoint in the name of a published reward model, `PROTOCOL@CHECKPOINT` (see
    `vlprm.published`); an empty protocol in any other name."""
    found = None if Path(name).is_dir() else re.fullmatch(r"(\w+)@(.+)", str(name))
    return (found[1], found[2]) if found else ("", str(name))


def checkpoint_folder(name: str | Path, weights: bool = True) -> Path:
    """The folder of a checkpoint: `builtin/policy`, `builtin/backbone`, a path, or a model of the Hub, which is
    downloaded if it is not cached; without `weights`, only its config and processor. UserError if it does not exist."""
    name = protocol_of(name)[1]
    if str(name) in BUILTIN:
        return Path(str(files("vlprm.builtin") / BUILTIN[str(name)]))
    if (folder := Path(name)).is_dir():
        return folder
    known = f"give a folder, a model of the Hub, or one of {', '.join(BUILTIN)}"
    if not re.fullmatch(r"[\w-]+/[\w.-]+", str(name)):
        raise UserError(f"no checkpoint folder {folder}; {known}")
    try:
        return Path(snapshot_download(str(name), allow_patterns=None if weights else list(CHECKPOINT_FILES)))
    except (OSError, HFValidationError) as error:
        raise UserError(hub_refusal(str(name), error)) from error


def checkpoint_config_of(folder: Path) -> CheckpointConfig:
    """A checkpoint's `vlprm.json`. Without one, the folder is an instruction-tuned policy from the Hub that writes its
    family's box dialect. UserError if the model or its family is unknown."""
    if (folder / CHECKPOINT_FILE).is_file():
        return load_checkpoint_config(folder)
    _refuse_unknown_model(folder)
    family = family_of(AutoConfig.from_pretrained(folder))
    said = "%s has no %s: box dialect %s, prompt template %s"
    log.info(said, folder, CHECKPOINT_FILE, family.dialect, TAGGED.prompt_template)
    return replace(TAGGED, dialect=family.dialect)


def placement(device: str, dtype: str) -> tuple[str, torch.dtype]:
    """The device and dtype of a model from their names in configs; `auto` is the GPU if there is one, and bfloat16 on
    it.

    UserError lists the devices of this machine.
    """
    gpus = torch.cuda.device_count()
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    known = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus))]
    if device not in known:
        raise UserError(f"no device {device!r} on this machine; give auto or one of {', '.join(known)}")
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}; give auto or one of {', '.join(DTYPES)}")
    return device, DTYPES[dtype]


def load_policy(
    name: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32, plain: bool = False
) -> Checkpoint:
    """Load an image-text-to-text model with its processor and `vlprm.json`, in evaluation mode. A `plain` one reads
    questions alone, without the request of its prompt template."""
    folder = checkpoint_folder(name)
    refuse_step_head(folder)
    declared = replace(checkpoint_config_of(folder), prompt_template="plain@1") if plain else None
    return load_checkpoint(folder, AutoModelForImageTextToText, device, dtype, load_inputs(folder, declared))


def refuse_step_head(folder: Path) -> None:
    """UserError for a reward model with a step head that has not learnt to write critiques."""
    declared = checkpoint_config_of(folder)
    if declared.head == "step" and not declared.provenance.get("critiques"):
        raise UserError(f"{folder} is a reward model and writes no text; give a policy or a judge in its place")


def load_inputs(folder: Path, checkpoint_config: CheckpointConfig | None = None) -> InputBuilder:
    """The builder of a checkpoint's inputs, without loading weights; `checkpoint_config` replaces the folder's own."""
    if checkpoint_config is None:
        checkpoint_config = checkpoint_config_of(folder)
        _refuse_unknown_boxes(folder, checkpoint_config)
    _refuse_unknown_model(folder)
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(_unloadable(folder, error)) from error
    if not processor.chat_template:
        raise UserError(
            f"{folder} has no chat template; add its chat_template.jinja, or give an instruction-tuned model"
        )
    config = AutoConfig.from_pretrained(folder)
    own = limits_of(processor, checkpoint_config.family or family_of(config))
    inputs = InputBuilder(processor, checkpoint_config, config)
    log.info("%s: %s", folder, described(inputs.pixel_limits, own))
    return inputs


def part_of(parameter: str, family: Family) -> Part | Literal["reference"] | None:
    """The part of a model that a parameter belongs to, by its name: also the frozen reference of an implicit head; None
    for a step head."""
    if parameter.startswith("score."):
        return None
    if parameter.startswith("reference."):
        return "reference"
    if parameter.startswith(f"model.{family.projector}."):
        return "projector"
    return "vision" if parameter.startswith(f"model.{family.vision}.") else "text"


def freeze(model: Any, family: Family, parts: Sequence[Part]) -> None:
    """Exclude these parts, and a reference, from training. UserError if nothing remains to train."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name, family) not in (*parts, "reference"))
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(f"freeze: {', '.join(parts)} leaves nothing to train; remove one of them")


def load_checkpoint(
    folder: Path, model_class: Any, device: str, dtype: torch.dtype, inputs: InputBuilder
) -> Checkpoint:
    """Load a folder's weights with `model_class`, in evaluation mode. UserError if they cannot be loaded."""
    try:
        model = model_class.from_pretrained(folder, dtype=dtype).to(device).eval()
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(_unloadable(folder, error)) from error
    return Checkpoint(model, inputs)


def stored_config(folder: Path) -> dict[str, Any]:
    """What the `config.json` of a checkpoint says. UserError if the folder has none, or one that is not JSON."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a checkpoint folder: it has no config.json; give the folder that has it")
    try:
        return json.loads(path.read_text())  # type: ignore[no-any-return]
    except ValueError as error:
        raise UserError(_unloadable(folder, error)) from error


def _unloadable(folder: Path, error: Exception) -> str:
    return f"checkpoint {folder} cannot be loaded ({' '.join(str(error).split())}); copy or train it again"


def _refuse_unknown_boxes(folder: Path, checkpoint_config: CheckpointConfig) -> None:
    asked = "[zoom]" in TEMPLATES.get(checkpoint_config.prompt_template, "") or checkpoint_config.zoom.tools
    if checkpoint_config.head == "none" and checkpoint_config.dialect == NO_DIALECT and asked:
        raise UserError(
            f"the prompt of {folder} asks for zooms without a declared box dialect; write {folder / CHECKPOINT_FILE}"
            f" with one of {', '.join(DIALECTS)}, or with a prompt_template without zooms"
        )


def _refuse_unknown_model(folder: Path) -> None:
    written = stored_config(folder)
    try:
        # Code inside a checkpoint is never run, and transformers must not ask the user about it.
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        known = type(config) in AutoModelForImageTextToText._model_mapping
    except OSError as error:
        raise UserError(_unloadable(folder, error)) from error
    except ValueError:  # raised by transformers if model_type is unknown or missing
        known = False
    if not known:
        if "auto_map" in written:
            raise UserError(
                f"{folder} needs its own code (auto_map in config.json), which is not run here; give a version for"
                " transformers' own classes (on the Hub, often the same name with -hf)"
            )
        raise UserError(
            f"the model_type in {folder / 'config.json'} is not an image-text-to-text model of transformers; correct it"
        )
