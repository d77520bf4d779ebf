"""What `data_synth.label` and `data_synth.fuse` are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlprm.labels.fusion import Rule


@dataclass(frozen=True)
class LabelConfig:
    """Fuse counts and verdicts.

    Args:
        trees: the run folder of data_synth.trees.
        run: folder to write `dataset.parquet` into.
        judgements: the run folder of data_synth.judge; None, and the counts are all the evidence.
        rule: fusion rule, see vlprm.labels.fusion.RULES.
    """

    trees: Path
    run: Path
    judgements: Path | None = None
    rule: Rule = "bayes"


@dataclass(frozen=True)
class FuseConfig:
    """Fuse again.

    Args:
        dataset: parquet file of data_synth.label.
        target: parquet file to write.
        rule: fusion rule, see vlprm.labels.fusion.RULES.
    """

    dataset: Path
    target: Path
    rule: Rule
