"""What `data_synth.decontaminate` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt


@dataclass(frozen=True)
class DecontaminateConfig:
    """Leave out the rows of a dataset that match items of benchmarks.

    Args:
        dataset: dataset file (parquet).
        benchmark_dir: folders of benchmarks.
        target: dataset file to write.
        distance: bits of 256 in which the perceptual hashes of the same image may differ.
        near: bits within which images count as alike where their questions are the same template.
        embedding: a timm model that images are compared by as well: a folder as timm saves one, or a name.
        cosine: from which on images count as the same by it; what it should be depends on the model.
    """

    dataset: Path
    benchmark_dir: list[Path]
    target: Path
    distance: NonNegativeInt = 10
    near: NonNegativeInt = 40
    embedding: str | None = None
    cosine: ClosedUnitInterval | None = None
