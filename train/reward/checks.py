"""Refuse a training config that contradicts itself, has options without effect, or needs missing packages. Runs before
the run folder is opened, so the folder can take the corrected config."""

from __future__ import annotations

from dataclasses import replace

from transformers import AutoConfig

from train.loop.progress import refuse_frozen_adapters, refuse_missing_tracker
from train.reward.config import LossConfig, PrmConfig, RowsConfig
from vlprm.errors import UserError
from vlprm.model.attention import refuse_missing_flash
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.families import family_of
from vlprm.model.loading import checkpoint_config_of, checkpoint_folder, load_inputs
from vlprm.model.reward_loading import refuse_lookback, refuse_to_drop_head
from vlprm.prompts import TEMPLATES, CritiqueTemplate


def check(config: PrmConfig) -> None:
    """UserError for the first conflict in a config, with the fix."""
    for is_conflict, message in (
        *_row_conflicts(config),
        *_head_conflicts(config),
        *_outcome_conflicts(config),
        *_adapter_conflicts(config),
        *_attention_conflicts(config),
        *_rate_conflicts(config),
    ):
        if is_conflict:
            raise UserError(message)
    refuse_frozen_adapters(config.lora_rank, config.freeze)
    refuse_missing_flash(config.attention)
    folder = checkpoint_folder(config.backbone, weights=False)
    declared = checkpoint_config_of(folder)
    reads = {"surprise": config.surprise, "lookback": config.lookback}
    refuse_to_drop_head(folder, declared, config.head, reads, config.verdicts, config.loss.extra_outputs)
    if config.lookback:
        refuse_lookback(declared.family or family_of(AutoConfig.from_pretrained(folder)), config.attention)
    if config.lora_rank and declared.head == "implicit":
        raise UserError(
            f"{config.backbone} has a reference of its own, which adapters on it would replace; set lora_rank: 0, or"
            " give the reference as the backbone"
        )
    refuse_missing_tracker(config.report_to)
    if config.prompt_template not in (None, *TEMPLATES):
        raise UserError(f"unknown prompt template {config.prompt_template!r}; give one of {', '.join(TEMPLATES)}")
    overridden = with_overrides(declared, config)
    _check_critiques(config, overridden.critiques)
    if config.min_pixels is not None or config.max_pixels is not None:
        load_inputs(folder, overridden)  # refuses impossible limits
    if config.head == "verdict" or config.loss.critique:
        _check_branches(config)


def with_overrides(checkpoint_config: CheckpointConfig, config: PrmConfig) -> CheckpointConfig:
    """The checkpoint config with the pixel limits and the templates that a training config sets."""
    return replace(
        checkpoint_config,
        min_pixels=config.min_pixels or checkpoint_config.min_pixels,
        max_pixels=config.max_pixels or checkpoint_config.max_pixels,
        prompt_template=config.prompt_template or checkpoint_config.prompt_template,
        critique_template=config.critique_template or checkpoint_config.critique_template,
        beta=config.loss.beta if config.head == "implicit" else checkpoint_config.beta,
    )


def _check_critiques(config: PrmConfig, template: CritiqueTemplate) -> None:
    if not config.loss.critique and (config.critique_template or config.loss.critiques != "labels"):
        raise UserError(
            "critiques are not trained; set loss.critique: 1, or leave out critique_template and loss.critiques"
        )
    if config.loss.critiques == "judge" and not template.verdict_last:
        raise UserError(
            "critiques that begin with the verdict have no place for a judge's reasons; set critique_template:"
            " critique@3, or loss.critiques: labels"
        )


def _check_branches(config: PrmConfig) -> None:
    """UserError if the backbone cannot read branches: a question about a step is a branch, hidden from later steps."""
    folder = checkpoint_folder(config.backbone, weights=False)
    family = checkpoint_config_of(folder).family or family_of(AutoConfig.from_pretrained(folder))
    if family.cannot_pack:
        instead = "head: step" if config.head == "verdict" else "loss.critique: 0"
        raise UserError(
            f"the question after a step is a branch, which {config.backbone} cannot read: {family.cannot_pack};"
            f" set {instead}"
        )


def _row_conflicts(config: PrmConfig) -> list[tuple[bool, str]]:
    pairs = [name for name in ("siblings", "candidates") if getattr(config.loss, name)]
    whole = [*pairs, *(name for name in ("ranks", "critique") if getattr(config.loss, name))]
    return [
        (
            config.rows.uncertain is not None and config.rows.uncertain[0] >= config.rows.uncertain[1],
            f"rows.uncertain is {list(config.rows.uncertain or ())}; give the smaller value first",
        ),
        (
            config.rows.of == "paths" and bool(pairs),
            f"a row of one solution has no pairs for loss.{' and loss.'.join(pairs)}; set rows.of: trees",
        ),
        (
            config.rows.history == "removed" and bool(whole),
            f"rows.history: removed leaves each step alone, and loss.{' and loss.'.join(whole)} reads several; set"
            " rows.history: kept, or these weights to 0",
        ),
        (
            config.rows.words != "kept" and config.loss.critique > 0,
            f"a critique of steps with rows.words: {config.rows.words} would name what they do not say; set"
            " rows.words: kept, or loss.critique: 0",
        ),
    ]


def _head_conflicts(config: PrmConfig) -> list[tuple[bool, str]]:
    step, verdict = config.head == "step", config.head == "verdict"
    named = "an implicit head" if config.head == "implicit" else f"a {config.head} head"
    return [
        (
            not verdict and config.loss.vocabulary,
            f"{named} has no vocabulary to normalise over, so the loss has no bound; set loss.vocabulary: false, or"
            " head: verdict",
        ),
        (
            config.loss.vocabulary and config.loss.labels == "counts",
            "loss.labels: counts trains only the correct verdict, and loss.vocabulary needs both; set loss.vocabulary:"
            " false, or loss.labels to soft or hard",
        ),
        (
            not verdict and config.verdicts != CheckpointConfig.verdicts,
            f"{named} writes no verdicts, so {' and '.join(config.verdicts)} have no effect; leave out verdicts, or"
            " set head: verdict",
        ),
        (
            not step and config.surprise,
            f"{named} cannot read surprise; set surprise: false, or head: step",
        ),
        (
            not step and config.lookback,
            f"{named} cannot read lookback; set lookback: false, or head: step",
        ),
        (
            not step and bool(config.loss.extra_outputs),
            f"{named} has no output for the {' and the '.join(config.loss.extra_outputs)}; set head: step, or"
            " leave out loss.value and loss.concentration",
        ),
        (
            config.loss.concentration == "learned" and not (config.loss.value or config.loss.labels == "counts"),
            "a concentration is learned from the counts of rollouts; set loss.labels: counts or loss.value: 1, or give"
            " loss.concentration a number",
        ),
        (
            config.loss.evidence > 0 and config.loss.concentration != "learned",
            "loss.evidence lowers a learned concentration; set loss.concentration: learned, or loss.evidence: 0",
        ),
        (
            config.loss.value > 0 and config.loss.labels == "counts",
            "loss.labels: counts teaches `correct` what loss.value teaches the value; set loss.value: 0, or loss.labels"
            " to soft or hard",
        ),
    ]


def _outcome_conflicts(config: PrmConfig) -> list[tuple[bool, str]]:
    outcome, implicit, plain = config.loss.labels == "outcome", config.head == "implicit", LossConfig()
    of_steps = ("threshold", "value", "ranks", "siblings", "critique")
    read = [name for name in of_steps if getattr(config.loss, name) != getattr(plain, name)]
    cut = [name for name in ("after_first_error", "uncertain", "history")
           if getattr(config.rows, name) != getattr(RowsConfig(), name)]  # fmt: skip
    return [
        (
            implicit and not outcome,
            "an implicit head learns from the outcomes of whole solutions; set loss.labels: outcome",
        ),
        (
            outcome and bool(read),
            f"loss.labels: outcome reads no labels of steps, which loss.{' and loss.'.join(read)} would need; leave it"
            " out, or set loss.labels: soft",
        ),
        (
            outcome and bool(cut),
            f"loss.labels: outcome is about whole solutions, which rows.{' and rows.'.join(cut)} would cut; leave it"
            " out, or set loss.labels: soft",
        ),
        (
            implicit and bool(config.loss.candidates),
            "loss.candidates compares mean rewards of steps, which an implicit head adds up; set it to 0",
        ),
        (
            not implicit and config.loss.beta != plain.beta,
            f"a {config.head} head has no log-ratios for loss.beta; leave it out, or set head: implicit",
        ),
    ]


def _adapter_conflicts(config: PrmConfig) -> list[tuple[bool, str]]:
    return [
        (
            config.bits < 16 and not config.lora_rank,
            f"{config.bits}-bit weights cannot be trained without adapters; set lora_rank, or bits: 16",
        ),
    ]


def _rate_conflicts(config: PrmConfig) -> list[tuple[bool, str]]:
    untrained = "lora_rank trains the text layers alone" if config.lora_rank else "freeze lists vision"
    return [
        (
            config.vision_learning_rate is not None and bool(config.lora_rank or "vision" in config.freeze),
            f"vision_learning_rate has no effect, because {untrained}; leave it out, or train the vision tower with"
            " freeze: []",
        ),
    ]


def _attention_conflicts(config: PrmConfig) -> list[tuple[bool, str]]:
    branching = {
        "rows.of: trees": config.rows.of == "trees",
        "head: verdict": config.head == "verdict",
        "loss.critique": config.loss.critique > 0,
    }
    found = next((name for name, branches in branching.items() if branches), "")
    return [
        (
            config.attention.text == "flash" and bool(found),
            f"flash-attn cannot read rows that branch, as with {found}; set attention.text: tree, or train a step head"
            " on rows.of: paths without critiques",
        ),
        (
            config.attention.flash and not config.bfloat16,
            "flash-attn does not support float32; set bfloat16: true, or leave out attention",
        ),
    ]
