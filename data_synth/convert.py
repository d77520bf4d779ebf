"""Convert published step-label datasets to ours, and ours to other formats.

    python -m data_synth.convert --source FILE --format math_shepherd --to vlprm --target runs/shepherd.parquet
    python -m data_synth.convert --source runs/demo/labels/dataset.parquet --format vlprm --to trl --target trl.parquet

Records that cannot be read are dropped and counted by cause; docs/datasets.md says what each format keeps.
"""

from __future__ import annotations

from data_synth.formats.config import ConvertConfig
from data_synth.formats.conversion import convert
from vlprm.runs.config import run


def main(config: ConvertConfig) -> None:
    """Run `vlprm convert`."""
    convert(config)


if __name__ == "__main__":
    run(main, ConvertConfig)
