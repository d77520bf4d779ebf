"""Remove the rows of a dataset whose image or question occurs in a benchmark.

    python -m data_synth.decontaminate --dataset runs/demo/labels/dataset.parquet \\
      --benchmark_dir '[../shared/data/mathvista, ../shared/data/puzzlevqa]' --target runs/clean.parquet

`--embedding FOLDER --cosine 0.95` also compares images by their embeddings from a timm model.

A benchmark is a folder with items.jsonl (or problems.jsonl, see vlprm/data/problem_file.py) and the images that it
names. The report next to the target, clean.removed.json, lists the removed rows and what matched. docs/datasets.md
gives the rules.
"""

from __future__ import annotations

from data_synth.decontamination.config import DecontaminateConfig
from data_synth.decontamination.matching import decontaminate
from vlprm.runs.config import run


def main(config: DecontaminateConfig) -> None:
    """Run `vlprm decontaminate`."""
    decontaminate(config)


if __name__ == "__main__":
    run(main, DecontaminateConfig)
