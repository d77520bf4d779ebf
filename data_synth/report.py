"""Report the labels of a data synthesis run and their cost: tables, `synthesis.json`, a page, and a data card.

    python -m data_synth.report --run runs/demo

Reads the run's folders `trees` and `labels`, and the judgements that the labels were made from. On synthetic tasks it
measures every fusion rule against the ground truth, on the same steps.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_synth.judges.config import JUDGEMENTS
from data_synth.reports.artifacts import ArtifactTally
from data_synth.reports.card import data_card
from data_synth.reports.config import ReportConfig
from data_synth.reports.tally import RuleTally, StepTally
from data_synth.search.store import TreeRun
from data_synth.search.tree import is_mixed
from vlprm.answers import FORMS, form_of
from vlprm.data.dataset import iterate_rows, row_count, row_evidence
from vlprm.errors import UserError
from vlprm.labels.fusion import INJECTED
from vlprm.metrics import percent
from vlprm.runs.config import run
from vlprm.runs.cost import Cost, cost_of, summed
from vlprm.runs.folder import INPUTS, fingerprint, json_object, refuse_other_inputs, seconds_of, write_atomically
from vlprm.runs.journal import iterate_finished
from vlprm.runs.progress import tracked
from vlprm.tasks import load_tasks
from vlprm.viewer.page import render_page
from vlprm.viewer.sections import synthesis_section
from vlprm.viewer.tables import plain_table
from vlprm.viewer.trees import LabelledTrees

log = logging.getLogger(__name__)

CARD_NAME = "README.md"  # where the Hub looks for it
SHOWN = 400  # trees on the page, evenly spaced over the dataset


def main(config: ReportConfig) -> None:
    """Run `vlprm synthesis-report`."""
    dataset = config.run / "labels" / "dataset.parquet"
    steps, rules = StepTally(), RuleTally(load_tasks(config.tasks))
    trees = TreeRun(config.run / "trees")
    judgements = _judgements(dataset.parent)
    results: dict[str, Any] = {"trees": _trees(trees)}
    if dataset.exists():
        refuse_other_inputs(dataset.parent, trees.files)
    artifacts = ArtifactTally()
    meta: dict[str, Any] = {}
    for number, row in enumerate(tracked(iterate_rows(dataset), "rows", row_count(dataset))):
        evidence = row_evidence(row)
        steps.add(row, evidence)
        artifacts.add(number, row, evidence)
        rules.add(row, evidence)
        meta = meta or json.loads(row["meta"])
    judged = {name: _judged(folder) for name, folder in judgements.items()}
    sources = {name: {"failures": {}, **told, **judged.get(name, {})} for name, told in steps.sources().items()}
    results |= {"steps": steps.result(), "truth": rules.result(), "sources": sources, "artifacts": artifacts.result()}
    results["cost"] = _cost(results, config, judgements, judged)
    results["stages"] = _stages(config.run / "trees", judgements.values())
    results["rows"] = row_count(dataset)
    write_atomically(dataset.parent / CARD_NAME, data_card(results, meta, config.run, config.license))
    write_atomically(config.run / "synthesis.json", json.dumps(results, indent=2) + "\n")
    trees_shown = LabelledTrees(dataset, SHOWN)
    part = f" ({len(trees_shown)} of {trees_shown.total} trees)" if len(trees_shown) < trees_shown.total else ""
    page = render_page(f"step labels{part}", [synthesis_section(results)], trees_shown)
    write_atomically(config.run / "synthesis.html", page)
    _print(results)
    log.info(
        "results in %s, page in %s, data card in %s",
        config.run / "synthesis.json", config.run / "synthesis.html", dataset.parent / CARD_NAME,
    )  # fmt: skip


def _trees(trees: TreeRun) -> dict[str, Any]:
    sums: Counter[str] = Counter(trees=0, mixed=0, rollouts=0, planned=0, requests=0, tokens=0)
    stops: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    for searched in trees:
        tree = searched.tree
        solved = [(node, answer) for node, answer in tree.leaves if INJECTED not in tree.nodes[node].label.votes]
        for node, answer in solved:
            form = form_of([tree.nodes[i].step for i in tree.path(node)])
            forms[form] += 1
            unread[form] += answer is None
        sums.update(trees=1, mixed=is_mixed(tree), rollouts=tree.rollouts, planned=tree.planned)
        sums.update(requests=tree.requests, tokens=tree.tokens)
        stops.update(tree.stops)
    failures = Counter(failure for failure, _ in trees.failures.values())
    no_result = {stop: n for stop, n in stops.most_common() if stop != "answer"}
    saved = 1 - sums["rollouts"] / sums["planned"] if sums["planned"] else 0.0
    return {
        **sums,
        "rollouts_saved": saved,
        "failures": dict(failures),
        "rollouts_without_result": no_result,
        "answer_forms": dict(forms.most_common()),
        "answer_forms_unread": dict(unread.most_common()),
    }


def _judgements(labels: Path) -> dict[str, Path]:
    """The run folders of the judgements that labels were made from, by the source's name, next to the labels or where
    they were then. UserError if one is gone or has changed."""
    folders: dict[str, Path] = {}
    for made_from, print_then in json_object(labels / INPUTS).items():
        path = Path(made_from)
        if path.name == JUDGEMENTS:
            places = [labels.parent / path.parent.name / JUDGEMENTS, path]
            found = next((p for p in places if p.exists() and fingerprint(p) == print_then), None)
            if found is None:
                raise UserError(f"{labels} was made from {path}, which is gone or has changed; make the labels again")
            folders[path.parent.resolve().name] = found.parent
    return folders


def _judged(folder: Path) -> dict[str, Any]:
    sums: Counter[str] = Counter(requests=0, tokens=0, verdicts=0)
    failures: Counter[str] = Counter()
    for record in iterate_finished(folder / JUDGEMENTS, "data_synth.judge"):
        sums.update(requests=record.get("requests", 0), tokens=record.get("tokens", 0))
        sums.update(verdicts=sum(verdict is not None for verdict in record["verdicts"]))
        failures.update(record.get("failures", {}))
    return {**sums, "failures": dict(failures)}


def _cost(
    results: dict[str, Any], config: ReportConfig, judgements: dict[str, Path], judged: dict[str, dict[str, Any]]
) -> dict[str, float]:
    """Cost per labelled step, including the search of problems that gave no labels."""
    labelled = max(1, results["steps"]["labelled"])
    spent = {what: sum(source[what] for source in judged.values()) for what in ("tokens", "requests")}
    tokens = results["trees"]["tokens"] + spent["tokens"]
    parts = [
        config.run / "trees",
        *(config.run / "trees").glob("shard-*"),
        *judgements.values(),
        config.run / "labels",
    ]
    seconds = sum(sum(seconds_of(part).values()) for part in parts)
    cost = {
        "rollouts": results["trees"]["rollouts"] / labelled,
        "requests": (results["trees"]["requests"] + spent["requests"]) / labelled,
        "tokens": tokens / labelled,
        "seconds": seconds / labelled,
    }
    price = config.price_per_million_tokens
    return {**cost, "price": price * tokens / 1e6 / labelled} if price else cost


def _stages(trees: Path, judgements: Iterable[Path]) -> dict[str, dict[str, float | None]]:
    """What the calls of models cost in each stage, over all its runs; without the stages that recorded none."""
    folders = [trees, *trees.glob("shard-*"), *judgements]
    found: dict[str, list[Cost]] = {}
    for folder in folders:
        for stage, cost in cost_of(folder).items():
            found.setdefault(stage, []).append(cost)
    return {stage: _resources(summed(costs)) for stage, costs in found.items()}


def _resources(cost: Cost) -> dict[str, float | None]:
    used = cost.usage
    return {
        "requests": used.requests,
        "failures": used.failures,
        "tokens_read": used.read,
        "cache_hits": cost.cache_hits,
        "tokens_sampled": used.sampled,
        "device_seconds": cost.device_seconds,
    }


def _print(results: dict[str, Any]) -> None:
    console, steps = Console(), results["steps"]
    trees = results["trees"]
    _counts(console, "Trees", {k: v for k, v in trees.items() if isinstance(v, int)})
    _counts(console, "No result, by cause", Counter(trees["failures"]) + Counter(trees["rollouts_without_result"]))
    forms = plain_table("Forms of the answers", "form", "solutions", "not read")
    for form, count in trees["answer_forms"].items():
        forms.add_row(FORMS[form], str(count), str(trees["answer_forms_unread"].get(form, 0)))
    console.print(forms)
    if results["sources"]:
        console.print(_sources(results["sources"]))
    for name, source in results["sources"].items():
        _counts(console, f"Judgements of {name} that could not be read", source["failures"])
    if results["artifacts"]:
        console.print(_artifacts(results["artifacts"]))
    for title, name in (("source", "by_source"), ("kind", "by_kind"), ("position", "by_position")):
        table = plain_table(f"Steps by {title}", title, "steps", "labelled", "called wrong")
        for key, row in steps[name].items():
            table.add_row(str(key), *(str(row[k]) for k in ("steps", "labelled", "wrong")))
        console.print(table)
    _counts(console, "Steps by target", steps["targets"])
    _counts(console, "Solutions selected for training", steps["learnt_from"])
    _counts(console, "Error kinds of wrong steps", steps["error_kinds"])
    _counts(console, "Monte Carlo and judge", {k: v for k, v in steps["agreement"].items() if k != "share"})
    table = plain_table("Cost per labelled step", "resource", "amount")
    for name, value in results["cost"].items():
        table.add_row(name, f"{value:.4g}")
    console.print(table)
    if results["stages"]:
        console.print(_stage_table(results["stages"]))
    if results["truth"]:
        console.print(_truth(results["truth"]))


def _stage_table(stages: dict[str, Any]) -> Table:
    table = plain_table(
        "Cost by stage", "stage", "requests", "failures", "tokens read", "of these cached %", "tokens sampled",
        "device seconds",
    )  # fmt: skip
    for stage, row in stages.items():
        hits = "" if row["cache_hits"] is None else percent(row["cache_hits"])
        counts = (f"{row[name]:,}" for name in ("requests", "failures", "tokens_read"))
        table.add_row(stage, *counts, hits, f"{row['tokens_sampled']:,}", f"{row['device_seconds']:,.0f}")
    return table


def _artifacts(found: dict[str, Any]) -> str:
    told = "too few steps" if found["auroc"] is None else f"AUROC {found['auroc']:.3f}"
    return (
        f"{found['injected']} injected steps against {found['natural']} natural first errors, told apart by their words"
        f" alone: {told} (0.5: not at all)"
    )


def _sources(sources: dict[str, Any]) -> Table:
    table = plain_table("Sources of verdicts, rates with 95% intervals", "", *sources)
    table.add_row("what it is", *(source["kind"] for source in sources.values()))
    table.add_row("speaks of %", *(percent(source["coverage"]) for source in sources.values()))
    for rate in next(iter(sources.values()))["rates"]:
        table.add_row(rate, *(source["rates"][rate] for source in sources.values()))
    for other in sources:
        table.add_row(f"depends on {other}", *(source["dependence"].get(other, "") for source in sources.values()))
    return table


def _truth(truth: dict[str, Any]) -> Table:
    table = plain_table(
        f"Detection of wrong steps against the ground truth ({truth['steps']} steps)",
        "rule", "precision", "recall", "F1", "labelled %", "calibration error", "Brier",
    )  # fmt: skip
    for rule, row in truth["rules"].items():
        numbers = (f"{row[k]:.3f}" for k in ("precision", "recall", "f1"))
        table.add_row(rule, *numbers, percent(row["labelled"]), f"{row['ece']:.3f}", f"{row['brier']:.3f}")
    return table


def _counts(console: Console, title: str, counts: dict[str, int]) -> None:
    if counts:
        table = plain_table(title, "", "count")
        for name, count in counts.items():
            table.add_row(name.replace("_", " "), str(count))
        console.print(table)


if __name__ == "__main__":
    run(main, ReportConfig)
