"""Config of `data_synth.convert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval

Format = Literal[
    "vlprm", "vl_prm300k", "visual_prm400k", "mm_prm", "omega_prm", "prm800k", "math_shepherd", "trl",
    "visual_process_bench", "dual_math", "vil_reward", "pro_judge", "dream_prm", "vrprm", "evpv",
]  # fmt: skip


@dataclass(frozen=True)
class ConvertConfig:
    """Convert a dataset of step labels.

    Args:
        source: .jsonl, .json or .parquet file, or a folder of such files.
        format: format of the source.
        to: format of the target: vlprm (trees), vlprm_paths (one solution per row), trl, chat, messages
            (ms-swift, LLaMA-Factory), or dpo (TRL's pairs of a right and a wrong step after the same steps).
        target: parquet file to write; without images, trl may also be .jsonl.
        images: folder that contains the source's image paths.
        threshold: targets other than ours: a step is correct if its label is above this value.
        push_to: USER/NAME of a Hub dataset to push the target to, with the token of `hf auth login`.
    """

    source: Path
    format: Format
    to: Literal["vlprm", "vlprm_paths", "trl", "chat", "messages", "dpo"]
    target: Path
    images: Path | None = None
    threshold: ClosedUnitInterval = 0.0
    push_to: str | None = None
