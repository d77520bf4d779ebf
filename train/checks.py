"""What of a config contradicts itself, has no effect, or asks for what is not installed: said before a run is opened,
so that its folder can take the corrected config."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.prm import PrmConfig

VERDICTS = ("+", "-")


def check(config: PrmConfig) -> None:
    """ValueError names the first field that is amiss, and the fix."""
    for amiss, said in (*_of_rows(config), *_of_heads(config), *_of_adapters(config)):
        if amiss:
            raise ValueError(said)


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
            step and config.verdicts != VERDICTS,
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
