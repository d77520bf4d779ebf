"""Measures of preferences: the benchmark's accuracy, ties, what has no result, and where a judge looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from eval.step_scores.results import headline, interval_text, official_table
from eval.step_scores.rows import intervals
from vlprm.pair_benchmarks.counting import measured
from vlprm.pair_benchmarks.pairs import Pair, PairBenchmark, Preference
from vlprm.viewer.tables import plain_table

Record = Mapping[str, Any]
Preferences = Sequence[Sequence[Preference]]
MAIN = "accuracy"


def official(benchmark: PairBenchmark, pairs: Sequence[Pair], preferences: Preferences) -> dict[str, Any]:
    """The accuracy by the official rule with 95% intervals. If something has no result, also that of the pairs with
    every result, and the worst case: what has no result is wrong."""

    def of(chosen: Sequence[int]) -> dict[str, float]:
        return headline(measured(benchmark, [pairs[i] for i in chosen], [preferences[i] for i in chosen]), MAIN)

    row = {"measures": measured(benchmark, pairs, preferences), "ci": intervals(pairs, of)}
    if any(None in of_pair for of_pair in preferences):
        whole = [i for i, of_pair in enumerate(preferences) if None not in of_pair]
        row["results_alone"] = measured(benchmark, [pairs[i] for i in whole], [preferences[i] for i in whole])
        wrong = [[0.0 if preference is None else preference for preference in of_pair] for of_pair in preferences]
        row["were_no_results_false"] = measured(benchmark, pairs, wrong)
    return row


def no_result(records: Sequence[Record], preferences: Preferences) -> dict[str, Any]:
    """How many pairs have no result at all, how many preferences have none, and the causes of either."""
    causes: Counter[str] = Counter()
    for record in records:
        found = [record, *record.get("answers", ())]
        causes.update(one["no_result"] for one in found if "no_result" in one)
    return {
        "pairs": sum(all(preference is None for preference in of_pair) for of_pair in preferences),
        "preferences": sum(preference is None for of_pair in preferences for preference in of_pair),
        "causes": dict(causes),
    }


def position(pairs: Sequence[Pair], records: Sequence[Record]) -> dict[str, Any]:
    """How a judge's answers depend on the order: the share that prefers the response shown first (`first_shown`), and,
    of the pairs answered in both orders, the share whose answers all prefer the same response (`consistent`)."""

    def of(chosen: Sequence[int]) -> dict[str, float]:
        answers = [[a for a in records[i].get("answers", ()) if "prefers" in a] for i in chosen]
        firsts = [float(answer["prefers"] == answer["first"]) for of_pair in answers for answer in of_pair]
        both = [
            float(len({answer["prefers"] for answer in of_pair}) == 1)
            for of_pair in answers if len({answer["first"] for answer in of_pair}) == 2
        ]  # fmt: skip
        listed = {"first_shown": firsts, "consistent": both}
        return {name: sum(shares) / len(shares) for name, shares in listed.items() if shares}

    found = of(range(len(pairs)))
    return {**found, "ci": intervals(pairs, of) if found else {}}


def print_results(results: dict[str, Any]) -> None:
    """Print the tables of `results.json`."""
    console, none = Console(), results["no_result"]
    console.print(f"{results['benchmark']}: {results['pairs']} pairs, {results['ties']} ties, which count half")
    if causes := none["causes"]:
        counts = ", ".join(f"{cause} {count}" for cause, count in causes.items())
        console.print(f"{none['pairs']} pairs and {none['preferences']} preferences without a result ({counts})")
        console.print(f"official rule for no result: {none['official_rule']}")
    if MAIN not in results["official"]["measures"]:
        console.print("nothing counts by this rule, so there is no accuracy")
    console.print(official_table(results["official"], MAIN))
    if "aggregations" in results:
        table = plain_table("Other aggregations of step rewards", "aggregation", MAIN)
        for name, value in results["aggregations"].items():
            table.add_row(name, "none" if value is None else f"{value:.3f}")
        console.print(table)
    if results.get("position", {}).get("ci"):
        table = plain_table("The judge and the order", "measure", "share", "95% interval")
        for name, value in results["position"].items():
            if name != "ci":
                table.add_row(name, f"{value:.3f}", interval_text(results["position"]["ci"].get(name)))
        console.print(table)
