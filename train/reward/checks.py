"""What of a config contradicts itself, has no effect, or asks for what is not installed: said before a run is opened,
so that its folder can take the corrected config."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

from transformers import AutoConfig

from train.reward.config import PrmConfig
from vlprm.errors import UserError
from vlprm.model.attention import refuse_missing_flash
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.families import family_of
from vlprm.model.loading import checkpoint_config_of, checkpoint_folder, load_inputs

TRACKERS = {"wandb": ("wandb",), "trackio": ("trackio",), "tensorboard": ("tensorboard", "tensorboardX")}


def check(config: PrmConfig) -> None:
    """UserError names the first field that is amiss, and the fix."""
    for amiss, said in (*_of_rows(config), *_of_heads(config), *_of_adapters(config), *_of_attention(config)):
        if amiss:
            raise UserError(said)
    refuse_missing_flash(config.attention)
    packages = TRACKERS.get(config.report_to, ())
    if packages and not any(map(find_spec, packages)):
        needed = packages[0]
        raise UserError(f"report_to: {needed} needs the package {needed}; pip install it, or leave report_to out")
    if config.min_pixels is not None or config.max_pixels is not None:
        folder = checkpoint_folder(config.backbone)
        load_inputs(folder, with_pixel_limits(checkpoint_config_of(folder), config))  # which refuses what cannot be
    if config.head == "verdict" or config.loss.critique:
        _check_branches(config)


def with_pixel_limits(checkpoint_config: CheckpointConfig, config: PrmConfig) -> CheckpointConfig:
    """The profile, with the limits that a config sets."""
    return replace(
        checkpoint_config,
        min_pixels=config.min_pixels or checkpoint_config.min_pixels,
        max_pixels=config.max_pixels or checkpoint_config.max_pixels,
    )


def _check_branches(config: PrmConfig) -> None:
    """A question about a step stands on a branch, so that what follows does not see it."""
    folder = checkpoint_folder(config.backbone)
    family = checkpoint_config_of(folder).family or family_of(AutoConfig.from_pretrained(folder))
    if family.cannot_pack:
        instead = "head: step" if config.head == "verdict" else "loss.critique: 0"
        raise UserError(
            f"what is asked after a step stands on a branch, which {config.backbone} cannot read: {family.cannot_pack};"
            f" set {instead}"
        )


def _of_rows(config: PrmConfig) -> list[tuple[bool, str]]:
    pairs = [name for name in ("siblings", "candidates") if getattr(config.loss, name)]
    return [
        (
            config.rows.of == "paths" and bool(pairs),
            f"a row of one solution has no pairs, which loss.{' and loss.'.join(pairs)} would learn from; set rows.of:"
            " trees",
        )
    ]


def _of_heads(config: PrmConfig) -> list[tuple[bool, str]]:
    step = config.head == "step"
    return [
        (
            step and config.loss.vocabulary,
            "a step head has no vocabulary, and without one the loss has no bound; set loss.vocabulary: false, or"
            " head: verdict",
        ),
        (
            config.loss.vocabulary and config.loss.labels == "counts",
            "counts say nothing of the wrong verdict, which loss.vocabulary is to teach; set loss.vocabulary: false, or"
            " loss.labels to soft or hard",
        ),
        (
            step and config.verdicts != CheckpointConfig.verdicts,
            f"a step head writes no verdicts, and {' and '.join(config.verdicts)} have no effect; leave verdicts out,"
            " or set head: verdict",
        ),
        (
            not step and config.surprise,
            "a verdict head does not read the surprise; set surprise: false, or head: step",
        ),
    ]


def _of_adapters(config: PrmConfig) -> list[tuple[bool, str]]:
    return [
        (
            config.bits < 16 and not config.lora_rank,
            f"weights of {config.bits} bits cannot be trained; set lora_rank, or bits: 16",
        ),
        (
            bool(config.lora_rank) and "text" in config.freeze,
            "adapters are trained on the text layers, which freeze cannot keep as they are; take text out of freeze, or"
            " set lora_rank: 0",
        ),
    ]


def _of_attention(config: PrmConfig) -> list[tuple[bool, str]]:
    branching = {
        "rows.of: trees": config.rows.of == "trees",
        "head: verdict": config.head == "verdict",
        "loss.critique": config.loss.critique > 0,
    }
    found = next((name for name, branches in branching.items() if branches), "")
    return [
        (
            config.attention.text == "flash" and bool(found),
            f"flash-attn cannot read rows that branch, as with {found}; set attention.text: tree, or learn a step head"
            " from rows.of: paths alone",
        ),
        (
            config.attention.flash and not config.bfloat16,
            "flash-attn takes no float32; set bfloat16: true, or leave attention out",
        ),
    ]
