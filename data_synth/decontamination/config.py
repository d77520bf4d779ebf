"""Config of `data_synth.decontaminate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt


@dataclass(frozen=True)
class DecontaminateConfig:
    """Remove the rows of a dataset that match benchmark items.

    Args:
        dataset: dataset file (parquet).
        benchmark_dir: benchmark folders.
        target: dataset file to write.
        distance: images are the same if their 256-bit perceptual hashes differ in at most this many bits.
        near: bits by which the hashes may differ if both questions are the same.
        embedding: timm model that also compares images: a folder saved by timm, or a model name.
        cosine: images are the same from this cosine similarity of their embeddings on; depends on the model.
    """

    dataset: Path
    benchmark_dir: tuple[Path, ...]
    target: Path
    distance: NonNegativeInt = 10
    near: NonNegativeInt = 40
    embedding: str | None = None
    cosine: ClosedUnitInterval | None = None
