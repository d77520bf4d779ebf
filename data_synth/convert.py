"""Step-label datasets of the field -> ours, and ours -> theirs.

    python -m data_synth.convert --source FILE --format math_shepherd --to vlprm --target runs/shepherd.parquet
    python -m data_synth.convert --source runs/demo/labels/dataset.parquet --format vlprm --to trl --target trl.parquet

A record that cannot be read is dropped and counted by cause; see docs/datasets.md for what each format keeps.
"""

from __future__ import annotations

from data_synth.formats.config import ConvertConfig
from data_synth.formats.conversion import convert
from vlprm.runs.config import run


def main(config: ConvertConfig) -> None:
    convert(config)


if __name__ == "__main__":
    run(main, ConvertConfig)
