"""Score stored outputs on a benchmark with its authors' own rule.

python -m eval.score --benchmark mathvision --outputs outputs/Gemini-Pro.jsonl --data data/mathvision
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlprm.benchmarks import load_benchmark
from vlprm.benchmarks.benchmark import Benchmark, Item, NoItems, Reading, load_items
from vlprm.benchmarks.outputs import Outputs, read_outputs
from vlprm.errors import UserError
from vlprm.runs.config import run
from vlprm.runs.folder import write_atomically

SEED = 42  # as in MMMU's official scorer


@dataclass(frozen=True)
class ScoreConfig:
    """Score a file of outputs.

    Args:
        benchmark: name of the benchmark.
        outputs: file of outputs, in one of the layouts in vlprm/benchmarks/outputs.py.
        data: folder of the benchmark, as in its public repository.
        rule: scoring rule: official, as_published (reproduces published numbers), or another rule of the benchmark.
        subset: subset of the items to score.
        guess: replace missing answers as the official scorer does (seeded); random_fallbacks counts them.
        json: file to write the result to, with the ids of items without an answer or an output.
    """

    benchmark: str
    outputs: Path
    data: Path
    rule: str = "official"
    subset: str = "all"
    guess: bool = False
    json: Path | None = None


def main(config: ScoreConfig) -> None:
    """Print the score, and write it to `config.json` if set."""
    result = score(config)
    if config.json:
        write_atomically(config.json, json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "ids"}, indent=2))


def score(config: ScoreConfig) -> dict[str, Any]:
    """Counts over all items of the subset. An item without an output or an answer is in `total`, but not right."""
    benchmark = load_benchmark(config.benchmark)
    if config.rule not in benchmark.rules:
        raise UserError(f"{benchmark.name} has no rule {config.rule!r}; known: {', '.join(benchmark.rules)}")
    outputs = read_outputs(config.outputs, benchmark)
    items, missing, unnamed = counted_items(benchmark, config, outputs)
    readings = {
        i: benchmark.rules[config.rule](item, outputs.by_id[i]) for i, item in items.items() if i not in missing
    }
    no_answer = [i for i, reading in readings.items() if reading.answer is None]
    guesses = guessed(benchmark, items, outputs, no_answer) if config.guess else {}
    readings |= guesses
    right = {i for i, reading in readings.items() if reading.answer is not None and reading.correct}
    total = len(items) + unnamed
    unknown = [i for i in outputs.by_id if i not in items]
    return {
        "benchmark": benchmark.name,
        "rule": config.rule,
        "subset": config.subset,
        "correct": len(right),
        "total": total,
        "accuracy": len(right) / total,
        "scores": benchmark.scores(items, right),
        "parse_rate": (len(readings) - len(no_answer)) / total,
        "random_fallbacks": len(guesses),
        "no_answer": len(no_answer),
        "missing": len(missing) + unnamed,
        "unknown": len(unknown),
        "malformed": outputs.malformed,
        "torn_last_line": outputs.torn,
        "by": breakdowns(benchmark, items, outputs, right),
        "ids": {"no_answer": no_answer, "missing": sorted(missing), "unknown": unknown},
    }


def counted_items(benchmark: Benchmark, config: ScoreConfig, outputs: Outputs) -> tuple[dict[str, Item], set[str], int]:
    """The items to score, the ids of those without an output, and the number of further items with unknown ids.

    Items come from the folder. If output records carry their own items, only these and the rest of the same parts of
    the benchmark count: public scorers run per part, and each public file holds one part.
    """
    carried = carried_items(benchmark, config.subset, outputs)
    try:
        items = load_items(benchmark, config.data, config.subset)
    except NoItems:
        if not carried:
            raise
        items = {}
    for item_id in carried.keys() & items.keys():
        if items[item_id].gold != carried[item_id].gold:
            raise UserError(
                f"{item_id}: {config.outputs} has the answer {carried[item_id].gold}, but {config.data} has "
                f"{items[item_id].gold}; pass the folder that the outputs were generated from"
            )
    parts = {benchmark.part(item, config.subset): item for item in carried.values()}
    if carried:
        items = {i: item for i, item in items.items() if benchmark.part(item, config.subset) in parts}
        absent = {item.id: item for one in parts.values() for item in benchmark.rest(one, config.subset)}
        items = {i: item for i, item in absent.items() if i not in outputs.by_id} | items | carried
    if not items.keys() & outputs.by_id.keys():
        raise UserError(
            f"none of the {len(outputs.by_id)} ids in {config.outputs} belongs to {benchmark.name}, subset "
            f"{config.subset}; check both names (the first id is {next(iter(outputs.by_id))!r})"
        )
    return items, items.keys() - outputs.by_id.keys(), max(0, sum(size for _, size in parts) - len(items))


def carried_items(benchmark: Benchmark, subset: str, outputs: Outputs) -> dict[str, Item]:
    """The items stored in the output records. Records without a complete item are left out."""
    items: dict[str, Item] = {}
    for item_id, output in outputs.by_id.items() if benchmark.carried else ():
        try:
            item = benchmark.item(output.saved)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if benchmark.subsets[subset](item):
            items[item_id] = item
    return items


def guessed(
    benchmark: Benchmark, items: Mapping[str, Item], outputs: Outputs, no_answer: list[str]
) -> dict[str, Reading]:
    """The official scorer's random answers to these items, with its seed and in its order."""
    rng, guesses = random.Random(SEED), {}
    order = {item_id: place for place, item_id in enumerate(outputs.by_id)}
    for item_id in sorted(no_answer, key=lambda i: (benchmark.order(i), order[i])):
        answer = benchmark.guess(items[item_id], outputs.by_id[item_id], rng)
        if answer is not None:
            guesses[item_id] = Reading(answer, answer in items[item_id].gold)
    return guesses


def breakdowns(
    benchmark: Benchmark, items: Mapping[str, Item], outputs: Outputs, right: set[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Right answers, items and accuracy per part of each breakdown."""
    by: dict[str, dict[str, dict[str, float]]] = {}
    for item_id, item in items.items():
        output = outputs.by_id.get(item_id)
        for name, parts in (benchmark.groups(item, output) if output else item.groups).items():
            for part in parts:
                cell = by.setdefault(name, {}).setdefault(part, {"correct": 0, "total": 0})
                cell["correct"] += item_id in right
                cell["total"] += 1
    for cells in by.values():
        for cell in cells.values():
            cell["accuracy"] = cell["correct"] / cell["total"]
    return by


if __name__ == "__main__":
    run(main, ScoreConfig)
