"""Load and save step-reward models: a backbone's weights, a head, adapters, quantisation."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from vlprm.errors import UserError
from vlprm.model.attention import Attention
from vlprm.model.checkpoint_config import CHECKPOINT_FILE, Bits, CheckpointConfig, Head
from vlprm.model.class_loading import ClassLoader
from vlprm.model.families import Family
from vlprm.model.image_limits import set_limits
from vlprm.model.implicit import implicit_class
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import (
    Checkpoint,
    checkpoint_config_of,
    checkpoint_folder,
    load_checkpoint,
    load_inputs,
    stored_config,
)
from vlprm.model.lora import backbone_of, found, holds_adapters, with_adapters
from vlprm.model.reward_model import OUTPUTS, reward_class, scalar_class, verdict_class

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
    extra_outputs: tuple[str, ...] | None = None,
    to_adapt: bool = False,
    reads_lookback: bool | None = None,
) -> Checkpoint:
    """Load a reward model from its folder, or make one from a backbone's folder with `new_head`. A folder that has this
    head keeps it.

    A new step head has zero weights (all outputs equally likely), more features with `reads_surprise` and
    `reads_lookback`, and `extra_outputs` (None, for both: none, or those of the folder's head); a verdict head compares
    the tokens `verdicts`; the reference of an implicit head is the folder itself, or none if adapters are about to be
    added (`to_adapt`). `bits` below 16 quantises the text layers with bitsandbytes and keeps LoRA adapters separate;
    with 16 bits they are merged.
    On the device `meta`, the model has shapes but no weights: they are neither downloaded nor read, and `bits` has no
    effect.

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
        reads = {"surprise": reads_surprise, "lookback": reads_lookback}
        refuse_to_drop_head(folder, checkpoint_config, new_head, reads, verdicts, extra_outputs)
    is_new = new_head is not None and checkpoint_config.head != new_head
    checkpoint_config = replace(
        checkpoint_config, head=new_head or checkpoint_config.head, verdicts=verdicts or checkpoint_config.verdicts
    )
    inputs = load_inputs(folder, checkpoint_config)
    if checkpoint_config.head == "verdict":
        return load_verdict_model(folder, inputs, device, dtype, bits, attention, shapes_only)
    if checkpoint_config.head == "implicit":
        reference = None if to_adapt else reference_of(folder)
        return _implicit_model(folder, reference, inputs, device, dtype, bits, attention, shapes_only)
    extra = extra_outputs or ()
    looks = bool(reads_lookback) if is_new else _reads(folder, "lookback")
    if looks:
        refuse_lookback(inputs.family, attention)
    loader = ClassLoader(
        reward_class, inputs.family, attention, bits, is_new, reads_surprise, extra, shapes_only, looks
    )
    return load_checkpoint(folder, loader, device, dtype, inputs)


def refuse_lookback(family: Family, attention: Attention) -> None:
    """UserError where lookback ratios cannot be computed."""
    if family.cannot_pack:
        raise UserError(f"lookback is read from layers that attend to all tokens: {family.cannot_pack}; leave it out")
    if attention.text == "flash":
        raise UserError("flash-attn gives no lookback; set attention.text: tree, or lookback: false")


def load_verdict_model(
    folder: Path,
    inputs: InputBuilder,
    device: str,
    dtype: torch.dtype,
    bits: Bits = 16,
    attention: Attention = Attention(),
    shapes_only: bool = False,
) -> Checkpoint:
    """Load a folder whose LM head gives the scores: the two tokens of `inputs.verdict_ids` are compared; without them,
    it has a linear head of one output. UserError if weights are missing."""
    ids = inputs.verdict_ids
    loader = ClassLoader(
        lambda backbone: verdict_class(backbone, *ids) if ids else scalar_class(backbone),
        inputs.family,
        attention,
        bits,
        shapes_only=shapes_only,
    )
    return load_checkpoint(folder, loader, device, dtype, inputs)


def _implicit_model(
    folder: Path,
    reference: Path | None,
    inputs: InputBuilder,
    device: str,
    dtype: torch.dtype,
    bits: Bits,
    attention: Attention,
    shapes_only: bool = False,
) -> Checkpoint:
    loader = ClassLoader(implicit_class, inputs.family, attention, bits, shapes_only=shapes_only)
    checkpoint = load_checkpoint(folder, loader, device, dtype, inputs)
    checkpoint.model.beta = inputs.config.beta
    if reference is not None:
        checkpoint.model.refer_to(_reference(reference, inputs, device, dtype, attention, shapes_only))
    return checkpoint


def _reference(
    folder: Path, inputs: InputBuilder, device: str, dtype: torch.dtype, attention: Attention, shapes_only: bool = False
) -> PreTrainedModel:
    loader = ClassLoader(lambda backbone: backbone, inputs.family, attention, bits=16, shapes_only=shapes_only)
    model: PreTrainedModel = load_checkpoint(folder, loader, device, dtype, inputs).model
    return model


def reference_of(folder: Path) -> Path:
    """The reference of an implicit head: what its folder names, or the folder itself if it has no such head yet.
    UserError if the reference is not there, or has other files."""
    declared = checkpoint_config_of(folder)
    if declared.head != "implicit":
        return folder
    name = str(declared.provenance.get("reference", ""))
    said = f"the weights in {folder} are compared with the reference {name}"
    field = f'"reference" in the provenance of {folder / CHECKPOINT_FILE}'
    return found("reference", name, folder, declared.provenance, said, field)


def reference_name(backbone: str) -> str:
    """The name of the reference of an implicit head that is trained from a backbone."""
    folder = checkpoint_folder(backbone, weights=False)
    if checkpoint_config_of(folder).head == "implicit":
        return str(reference_of(folder).resolve())
    return str(folder.resolve()) if Path(backbone).is_dir() else backbone


def refuse_to_drop_head(
    folder: Path,
    checkpoint_config: CheckpointConfig,
    head: Head,
    reads: Mapping[str, bool | None],
    verdicts: tuple[str, str] | None,
    extra_outputs: tuple[str, ...] | None,
) -> None:
    """UserError if training this head from the folder would drop or change a head that is trained already."""
    if holds_adapters(folder):
        raise UserError(
            f"{folder} holds adapters without their backbone; merge them with train.merge, and give the result"
        )
    trained = checkpoint_config.head
    if trained == "none":
        return
    if trained in ("step", "implicit") and head != trained:
        named = "a trained step head" if trained == "step" else "a trained implicit head"
        raise UserError(f"{folder} has {named}, which head: {head} would drop; set head: {trained}")
    for name, asked in reads.items() if trained == "step" else ():
        if asked is not None and (had_read := _reads(folder, name)) != asked:
            raise UserError(f"the trained head of {folder} has {name}: {str(had_read).lower()}; set the same")
    if trained == "step" and extra_outputs is not None and (had := extra_outputs_of(folder)) != extra_outputs:
        names = ", ".join((*OUTPUTS, *had))
        raise UserError(f"the trained head of {folder} has the outputs {names}; train the same, or from its backbone")
    if trained == head == "verdict" and verdicts not in (None, checkpoint_config.verdicts):
        raise UserError(
            f"{folder} was trained with the verdicts {' and '.join(checkpoint_config.verdicts)}; set the same"
        )
    log.info("%s: its trained %s head is kept", folder, trained)


def _reads(folder: Path, name: str) -> bool:
    return bool(stored_config(folder).get(name, False))


def extra_outputs_of(folder: Path) -> tuple[str, ...]:
    """The outputs of a folder's step head beside the classes."""
    return tuple(stored_config(folder).get("extra_outputs", ()))


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
    extra = tuple(checkpoint_config.provenance.get("extra_outputs", ()))
    bare = load_reward_model(
        backbone, "cpu", dtype, checkpoint_config.head, surprised, checkpoint_config.verdicts, bits, attention, extra,
        to_adapt=True, reads_lookback=checkpoint_config.provenance.get("lookback", False),
    )  # fmt: skip
    if Path(checkpoint_config.provenance.get("reference", "")).is_absolute():  # it may have moved with the adapters
        moved = {**checkpoint_config.provenance, "reference": str(backbone.resolve())}
        checkpoint_config = replace(checkpoint_config, provenance=moved)
    model, inputs = with_adapters(bare.model, folder, merged=bits == 16), load_inputs(backbone, checkpoint_config)
    if checkpoint_config.head == "implicit":
        model.beta = checkpoint_config.beta
        if bits == 16:  # merged adapters cannot be left out
            model.refer_to(_reference(backbone, inputs, "cpu", dtype, attention))
    return Checkpoint(model.to(device).eval(), inputs)


def parameter_count(name: str | Path) -> int:
    """Number of parameters of a checkpoint's model, by its config. A step head is not counted, nor are adapters, which
    are merged into their backbone."""
    folder = checkpoint_folder(name, weights=False)
    if holds_adapters(folder):
        folder = backbone_of(folder, checkpoint_config_of(folder).provenance)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    return sum(parameter.numel() for parameter in model.parameters())


def save_reward_model(checkpoint: Checkpoint, folder: Path, checkpoint_config: CheckpointConfig) -> None:
    """Save a transformers folder with `vlprm.json`; its image limits also go into the saved processor. `vlprm.json` is
    written last, so a folder that has one is complete."""
    checkpoint.model.save_pretrained(folder)
    processor = copy.deepcopy(checkpoint.inputs.processor)
    set_limits(processor, checkpoint.inputs.family, checkpoint_config)
    processor.save_pretrained(folder)
    checkpoint_config.save(folder)
