"""The data card of a labelled dataset, as the Hub shows it: counts, balance, sources of verdicts, cost, licences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from data_synth.search.store import tree_files
from vlprm.runs.folder import CONFIG

CARD = """---
license: {license}
task_categories: [image-text-to-text]
tags: [process-reward-model, vision-language, step-labels]
---

# Step labels

{trees} search trees of a policy's solutions to questions about images, with a target for {labelled} of {steps} steps,
fused by the rule {rule}. One row per problem; the columns are described in `vlprm/data/dataset.py`. Train on it with
`python -m train.prm --dataset dataset.parquet`.

- licence of the images and questions: {license}
- policy: {policy}; sources of verdicts: {sources}. The terms of these models may restrict what is trained on their
  texts and verdicts.

## Labels

{counts}

| steps by {what} | steps | labelled | wrong |
|---|---|---|---|
{balance}

## Sources of verdicts

{reliability}

## Cost per labelled step

{cost}
"""


def data_card(results: dict[str, Any], meta: dict[str, Any], run: Path, license: str) -> str:
    """The card of a run's dataset from its report (`data_synth.report`) and the `meta` of one of its rows."""
    steps = results["steps"]
    targets = steps["targets"]
    counts = {
        "correct": targets["correct"], "wrong": targets["wrong"], "without a target": targets["none"],
        "soft targets": steps["soft_targets"],
        **{f"wrong by {kind}": n for kind, n in steps["error_kinds"].items()},
    }  # fmt: skip
    by_source = steps["by_source"]
    what = "source" if len(by_source) > 1 else "kind"
    rows = by_source if what == "source" else steps["by_kind"]
    return CARD.format(
        license=license,
        trees=results["rows"],
        labelled=steps["labelled"],
        steps=sum(targets.values()),
        rule=meta.get("rule", "unknown"),
        policy=_policy_of(run / "trees"),
        sources=", ".join(f"{name} ({source['kind']})" for name, source in results["sources"].items()) or "none",
        counts=_listed(counts),
        what=what,
        balance="\n".join(f"| {name} | {r['steps']} | {r['labelled']} | {r['wrong']} |" for name, r in rows.items()),
        reliability="\n\n".join(_reliability(*source) for source in results["sources"].items()) or "None.",
        cost=_listed({name: f"{value:.4g}" for name, value in results["cost"].items()}),
    )


def _policy_of(trees: Path) -> str:
    """The policy of a run of trees, sharded or not, without the path that it had on that machine."""
    path = tree_files(trees)[0].parent / CONFIG
    config = (yaml.safe_load(path.read_text()) if path.exists() else None) or {}
    name: str = (config.get("policy") or {}).get("checkpoint", "unknown")
    return Path(name).name if name.startswith(("/", ".")) else name


def _reliability(name: str, source: dict[str, Any]) -> str:
    """A source's share of steps, its estimated rates and its dependence on others."""
    depends = {f"dependence on {other}": told for other, told in source["dependence"].items()}
    return f"{name}:\n\n" + _listed({"steps judged": f"{source['coverage']:.1%}", **source["rates"], **depends})


def _listed(values: dict[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in values.items())
