"""A dataset's labels made again by another fusion rule, from the evidence that it keeps: no rollout, no judge.

python -m data_synth.fuse --dataset runs/demo/labels/dataset.parquet --rule consensus --target runs/consensus.parquet
"""

from __future__ import annotations

import json
import logging
from typing import Any

from data_synth.labels.config import FuseConfig
from vlprm.data.dataset import read_rows, row_evidence, row_paths, write_dataset
from vlprm.errors import UserError
from vlprm.labels.fusion import Rule, fuse_tree, mined_corrections
from vlprm.labels.judge_reliability import JudgeReliability
from vlprm.runs.config import run
from vlprm.schema import structured, to_json

log = logging.getLogger(__name__)


def main(config: FuseConfig) -> None:
    if config.target.exists():
        raise UserError(f"{config.target} is there; give another target, or remove it")
    old = read_rows(config.dataset)
    new = [fused_row(row, config.rule) for row in old]
    write_dataset(config.target, new)
    before, after = (sum(target is not None for row in rows for target in row["labels"]) for rows in (old, new))
    log.info("%d labelled steps by %s, %d before, in %s", after, config.rule, before, config.target)


def fused_row(row: dict[str, Any], rule: Rule) -> dict[str, Any]:
    """The row with its targets, error kinds and evidence as the rule has them."""
    meta = json.loads(row["meta"])
    if "judge_quality" not in meta:
        raise UserError(f"row {row['id']} does not say what is believed of its judge; make it with data_synth.label")
    quality = structured(JudgeReliability, meta["judge_quality"], f"what row {row['id']} believes of its judge")
    paths = [(path.nodes, path.right) for path in row_paths(row)]
    labels = fuse_tree(row_evidence(row), paths, rule, quality)
    corrections = mined_corrections(labels, row["parents"])
    evidence = [
        {**old, "label": to_json(label), "corrected_by": correction}
        for old, label, correction in zip(json.loads(row["evidence"]), labels, corrections, strict=True)
    ]
    return {
        **row,
        "labels": [label.target for label in labels],
        "error_kinds": [label.error_kind for label in labels],
        "evidence": json.dumps(evidence),
        "meta": json.dumps({**meta, "rule": rule}),
    }


if __name__ == "__main__":
    run(main, FuseConfig)
