"""Fuse a dataset's labels again with another rule, from its stored evidence: no new rollouts or judgements.

python -m data_synth.fuse --dataset runs/demo/labels/dataset.parquet --rule consensus --target runs/consensus.parquet
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

from data_synth.labels.config import FuseConfig
from vlprm.data.dataset import check_row, iterate_rows, row_count, row_evidence, row_solutions, write_dataset
from vlprm.errors import UserError
from vlprm.labels.fusion import Rule, fuse_tree, mined_corrections
from vlprm.labels.sources import Reliability
from vlprm.runs.config import run
from vlprm.runs.progress import tracked
from vlprm.schema import structured, to_json

log = logging.getLogger(__name__)


def main(config: FuseConfig) -> None:
    """Run `vlprm fuse`."""
    if config.target.exists():
        raise UserError(f"{config.target} already exists; choose another target, or remove it")
    labelled: Counter[str] = Counter(before=0, after=0)
    write_dataset(config.target, _fused(config, labelled))
    log.info(
        "%d steps labelled by %s (before: %d), in %s",
        labelled["after"], config.rule, labelled["before"], config.target,
    )  # fmt: skip


def _fused(config: FuseConfig, labelled: Counter[str]) -> Iterator[dict[str, Any]]:
    for old in tracked(iterate_rows(config.dataset), "rows", row_count(config.dataset)):
        new = fused_row(old, config.rule)
        labelled.update(
            {when: sum(t is not None for t in row["labels"]) for when, row in (("before", old), ("after", new))}
        )
        yield new


def fused_row(row: dict[str, Any], rule: Rule) -> dict[str, Any]:
    """The row with targets, error kinds and evidence from the rule. UserError if it lacks its sources' reliability."""
    meta = json.loads(row["meta"])
    if "reliability" not in meta:
        raise UserError(f"row {row['id']} lacks its sources' reliability; make the dataset with data_synth.label")
    quality = structured(Reliability, meta["reliability"], f"the sources' reliability in row {row['id']}")
    check_row(row)
    paths = row_solutions(row)
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
