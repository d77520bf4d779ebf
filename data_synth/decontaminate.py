"""A dataset without the problems of benchmarks: rows whose image or question is an item's are left out.

    python -m data_synth.decontaminate --dataset runs/demo/labels/dataset.parquet \\
      --benchmark_dir '[../shared/data/mathvista, ../shared/data/puzzlevqa]' --target runs/clean.parquet

`--embedding FOLDER --cosine 0.95` compares images by a timm model as well, where its weights are at hand.

A benchmark is a folder with items.jsonl (or problems.jsonl, see vlprm/data/problem_file.py) and the images that it
names. What was left out, and by what it matched, is in the target's report, clean.removed.json. docs/datasets.md has
the rules.
"""

from __future__ import annotations

from data_synth.decontamination.config import DecontaminateConfig
from data_synth.decontamination.matching import decontaminate
from vlprm.runs.config import run


def main(config: DecontaminateConfig) -> None:
    decontaminate(config)


if __name__ == "__main__":
    run(main, DecontaminateConfig)
