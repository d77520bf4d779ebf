"""What `data_synth.convert` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval

Format = Literal[
    "vlprm", "vl_prm300k", "visual_prm400k", "mm_prm", "omega_prm", "prm800k", "math_shepherd", "trl",
    "visual_process_bench",
]  # fmt: skip


@dataclass(frozen=True)
class ConvertConfig:
    """Convert a dataset of step labels.

    Args:
        source: file, or folder of files, that ends in .jsonl, .json or .parquet.
        format: what the source is.
        to: vlprm (trees), vlprm_paths (a solution a row), trl or chat.
        target: file to write; trl may also be .jsonl, where it has no images.
        images: folder that the source's image paths are in.
        threshold: trl and chat: a target above it is correct.
        push_to: USER/NAME of a dataset on the Hub that the target is also pushed to, with the token of `hf auth login`.
    """

    source: Path
    format: Format
    to: Literal["vlprm", "vlprm_paths", "trl", "chat"]
    target: Path
    images: Path | None = None
    threshold: ClosedUnitInterval = 0.0
    push_to: str | None = None
