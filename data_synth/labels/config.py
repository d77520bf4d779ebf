"""Configs of `data_synth.label`, `data_synth.claims` and `data_synth.fuse`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlprm.labels.fusion import Rule
from vlprm.tasks import TASKS


@dataclass(frozen=True)
class LabelConfig:
    """Fuse rollout counts and the verdicts of sources into step labels.

    Args:
        trees: run folder of data_synth.trees.
        run: run folder to write; the dataset is its `dataset.parquet`.
        judgements: run folders of data_synth.judge and data_synth.annotate, each a source named like its folder, the
            most trusted first; without any, labels use the rollout counts alone.
        rule: fusion rule, see vlprm.labels.fusion.RULES.
        keep_unmixed: also label problems that the policy solved always or never; the sources' error rates are
            still estimated on the others.
        gold: file of gold labels that add to what is known of the sources' errors; lines of
            `{"key": PROBLEM_ID, "step": INDEX, "verdict": "correct"}`, or a kind of error as the verdict; the
            `annotations.jsonl` of data_synth.annotate is one.
        tasks: task names or module paths, as passed to data_synth.trees; they know the true regions of zooms.
    """

    trees: Path
    run: Path
    judgements: tuple[Path, ...] = ()
    rule: Rule = "bayes"
    keep_unmixed: bool = False
    gold: Path | None = None
    tasks: tuple[str, ...] = tuple(TASKS)


@dataclass(frozen=True)
class ClaimsConfig:
    """Write the claims of perception steps with their spans and truth.

    Args:
        candidates: run folder of eval.run over drawn tasks, with a pool of candidates.
        run: run folder to write.
        tasks: task names or module paths, as passed to eval.run.
    """

    candidates: Path
    run: Path
    tasks: tuple[str, ...] = tuple(TASKS)


@dataclass(frozen=True)
class FuseConfig:
    """Fuse the labels of a dataset again with another rule.

    Args:
        dataset: parquet file of data_synth.label.
        target: parquet file to write.
        rule: fusion rule, see vlprm.labels.fusion.RULES.
    """

    dataset: Path
    target: Path
    rule: Rule
