"""Labels from one, two, three and more sources of verdicts, against the ground truth.

    python -m tests.perf.label_sources          (about a minute on one free core)

The policy is simulated: a careless writer with the blind spots of configs/builtin/policy.yaml, a little rarer, and one
slip in a hundred claims elsewhere, each independent of the others. Four solutions of a problem are searched with eight
rollouts a prefix. Judges are right about 80% of the steps, with independent or sticky errors (see
`tests.perf.label_quality`). All rates and all dependences are estimated, except the checker's and those of the rows
that say so.

F1 is that of wrong steps, as `label_quality` has it. Each row is compared with the best of its own sources alone, and
with a naive product of its votes (`product`), which takes all sources for independent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import yaml

from data_synth.judges.asked import reread
from data_synth.judges.checks import CHECKS, RATES
from data_synth.judges.oracle import on_each_path
from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from data_synth.search.store import Searched
from data_synth.search.tree import is_mixed
from tests.perf.label_quality import Tree, calls_of, confident, f1_interval, f1_of, independent, sticky, with_truth
from tests.perf.results import Effect, write_result
from tests.teacher import TeacherEngine, V
from vlprm.labels import judge_reliability
from vlprm.labels.fusion import RULES, with_votes
from vlprm.labels.judge_reliability import TreeEvidence, estimate_reliability, posterior_correct
from vlprm.labels.sources import Reliability, declared
from vlprm.schema import Problem, Step, Verdict
from vlprm.tasks import TASKS
from vlprm.tasks.scene import rng_for
from vlprm.tasks.synthetic import item_ids

PROBLEMS, SEEDS, ACCURACY, ROLLOUTS, SOLUTIONS = 240, 2, 0.8, 8, 4
FAMILIES = ("count_grid", "pattern", "chart", "figure")  # without zooms
SCALE, ELSEWHERE = 0.8, 0.01  # factor of the blind spots' rates; rate of other slips
SPEAKS = 0.1  # share of the steps that the abstainer speaks of
ROWS: dict[str, tuple[str, ...]] = {
    "one judge": ("a",),
    "two judges": ("a", "b"),
    "three judges": ("a", "b", "c"),
    "the same judge twice": ("a", "a again"),
    "a copy with 70% of the mistakes": ("a", "copy 70"),
    "a copy with 30% of the mistakes": ("a", "copy 30"),
    "three judges and a duplicate": ("a", "b", "c", "a again"),
    "three judges and the 70% copy": ("a", "b", "c", "copy 70"),
    "a judge and a weak one (60%)": ("a", "weak"),
    "a judge and an adversary (30%)": ("a", "adversary"),
    "a judge and one that speaks of 10%": ("a", "abstainer"),
    "a judge and the checker": ("a", "check"),
    "a judge and a re-reading (90%)": ("a", "reread 90"),
    "a judge and a re-reading (80%)": ("a", "reread 80"),
    "a judge and a declared re-reading (90%)": ("a", "declared 90"),
    "declared re-reading (90%) and checker, no judge": ("declared 90", "check"),
    "re-reading (90%) and checker, no judge": ("reread 90", "check"),
    "three judges, re-reading (90%), checker": ("a", "b", "c", "reread 90", "check"),
}
ALONE = {"reread 90", "reread 80", "declared 90", "check"}  # sources that speak of a kind of steps alone
DECLARED = {"check": declared(**RATES["deduction"], local=True), "declared 90": declared(0.9, 0.95)}
Says = Callable[[Problem, Sequence[Step], float, int], list[Verdict | None]]
Said = Mapping[str, Sequence[list[Verdict | None]]]  # per source, the verdicts on the nodes of each tree


class Sampler(TeacherEngine):
    """A careless writer with blind spots."""

    def __init__(self, blind_spots: Mapping[str, float]) -> None:
        super().__init__()
        self.blind_spots = blind_spots

    def written(self, concept: str, truth: V, near: Sequence[V], rng: random.Random) -> V:
        slips = near and rng.random() < SCALE * self.blind_spots.get(concept, ELSEWHERE / SCALE)
        return (near[0] if concept in self.blind_spots else rng.choice(near)) if slips else truth


def main() -> None:
    judge_reliability.RESAMPLES = 1  # intervals are not measured here
    known = made_trees()
    said = {style: [said_by_all(known, style, seed) for seed in range(SEEDS)] for style in (independent, sticky)}
    rows = [row for style, of_seeds in said.items() for row in measured(known, style.__name__, of_seeds)]
    gain = gain_of(known, said[sticky], ROWS["three judges"])
    write_rows(rows, on_counts(known), {"three judges less the best": gain})


def gain_of(known: Sequence[Tree], of_seeds: Sequence[Said], sources: Sequence[str]) -> Effect:
    """The F1 of sources, fused, less that of the best of them."""
    calls: dict[tuple[str, ...], list[Any]] = {of: [] for of in (tuple(sources), *((name,) for name in sources))}
    for said in of_seeds:
        for of, each in calls.items():
            evidence, quality = estimated(known, said, of)
            targets = [posterior_correct(seen, quality) for seen in evidence]
            each.append(np.array([calls_of(tree, t, "bayes") for tree, t in zip(known, targets, strict=True)]))
    f1 = {of: f1_of(np.sum([c.sum(axis=0) for c in each], axis=0)) for of, each in calls.items()}
    fused, best = tuple(sources), max(((name,) for name in sources), key=lambda of: f1[of])
    return Effect(f1[fused] - f1[best], *f1_interval(calls[fused], calls[best]), "F1", len(known), SEEDS)


def write_rows(rows: list[dict[str, Any]], counts: list[dict[str, Any]], effects: dict[str, Effect]) -> None:
    fused = [row for row in rows if len(row["sources"]) > 1]
    worst = max(row["brier"] - row["best_single_brier"] for row in fused)
    # Where two like sources disagree, the prior decides, which may cost F1 though the Brier score gains.
    many = [len(row["sources"]) > 2 or bool(ALONE & set(row["sources"])) for row in fused]
    less = [row["f1"] - row["best_single_f1"] for row in fused]
    write_result(
        "label_sources",
        [*counts, *rows],
        {
            "brier_over_best_single": (round(worst, 9), 0.0),
            "f1_less_best_single": (min(d for d, m in zip(less, many, strict=True) if m), 0.0),
            "f1_less_best_single_two_like": (min(d for d, m in zip(less, many, strict=True) if not m), -0.015),
        },
        effects,
    )


def on_counts(known: Sequence[Tree]) -> list[dict[str, Any]]:
    """The rows of rules that read counts alone."""
    rows = []
    for rule in ("mc", "outcome", "relative"):
        fused = (RULES[rule](TreeEvidence.of(tree.searched.tree), Reliability()) for tree in known)  # type: ignore[index]
        calls = np.sum([calls_of(tree, targets, rule) for tree, targets in zip(known, fused, strict=True)], axis=0)
        rows.append({"errors": "no judge", "row": rule, "sources": (), "f1": f1_of(calls)})
    band = confident(known)
    rows.append({"errors": "no judge", "row": "mc, confident", "sources": (), "f1": band["f1_confident"], **band})
    for row in rows:
        print(row, flush=True)
    return rows


def made_trees() -> list[Tree]:
    """The mixed trees of the simulated policy, with the truth of their steps."""
    with open("configs/builtin/policy.yaml") as file:
        engine = Sampler(yaml.safe_load(file)["blind_spots"])
    families = [TASKS[name] for name in FAMILIES]
    config = TreeSearchConfig(estimator="flat", solutions=SOLUTIONS, rollouts=ROLLOUTS)
    found = []
    for item in item_ids(families, "validation", PROBLEMS):
        problem = TASKS[item.partition("@")[0]].problem_by_id(item, drawn=False)
        tree = asyncio.run(search(problem, engine, config, seed=1))
        if is_mixed(tree):
            found.append(with_truth(Searched(problem, tree)))
    return found


def measured(known: Sequence[Tree], style: str, of_seeds: Sequence[Said]) -> list[dict[str, Any]]:
    """The rows of one style of errors, with the mean over the seeds."""
    each = [_of_seed(known, said) for said in of_seeds]
    steps = sum(len(tree.measured) for tree in known)
    rows = []
    for name, sources in ROWS.items():
        numbers = {key: float(np.mean([row[name][key] for row in each])) for key in each[0][name]}
        rows.append({"errors": style, "row": name, "sources": sources, **numbers, "steps": steps})
        shown = ", ".join(f"{key} {value:.3f}" for key, value in numbers.items())
        print(f"{style}, {name}: {shown}", flush=True)
    return rows


def said_by_all(known: Sequence[Tree], style: Says, seed: int) -> Said:
    """The verdicts of all sources on all trees."""

    def of(says: Callable[[Problem, Sequence[Step]], list[Verdict | None]]) -> list[list[Verdict | None]]:
        return [on_each_path(t.searched.tree, partial(says, t.searched.problem)) for t in known]

    def judge(number: int, accuracy: float) -> list[list[Verdict | None]]:
        return of(lambda problem, steps: style(problem, steps, 1 - accuracy, 100 * seed + number))

    def reader(accuracy: float) -> list[list[Verdict | None]]:
        return of(lambda problem, steps: reread(TASKS[problem.task], problem, steps, 1 - accuracy, seed))

    again = reader(0.9)
    a, b, c, other, silent = (judge(number, ACCURACY) for number in range(5))
    return {
        "a": a, "b": b, "c": c, "a again": a,
        "copy 70": _mixed(known, a, other, 0.7, seed), "copy 30": _mixed(known, a, other, 0.3, seed),
        "weak": judge(5, 0.6), "adversary": judge(6, 0.3),
        "abstainer": _mixed(known, silent, [[None] * len(v) for v in silent], SPEAKS, seed),
        "check": of(lambda problem, steps: CHECKS["deduction"](problem, steps, TASKS)),
        "reread 90": again, "declared 90": again, "reread 80": reader(0.8),
    }  # fmt: skip


def _mixed(
    known: Sequence[Tree],
    one: Sequence[list[Verdict | None]],
    other: Sequence[list[Verdict | None]],
    share: float,
    seed: int,
) -> list[list[Verdict | None]]:
    """The first source's verdict on this share of the steps, and the other's elsewhere; equal steps go alike."""
    return [
        [
            x if rng_for("mixed", seed, tree.searched.problem.id, node.step.text).random() < share else y
            for node, x, y in zip(tree.searched.tree.nodes, of_one, of_other, strict=True)
        ]
        for tree, of_one, of_other in zip(known, one, other, strict=True)
    ]


def _of_seed(known: Sequence[Tree], said: Said) -> dict[str, dict[str, float]]:
    names = {name for sources in ROWS.values() for name in sources}
    alone = {name: _fused(known, said, (name,))[0] for name in sorted(names)}
    rows = {}
    for row, sources in ROWS.items():
        ours, product = _fused(known, said, sources) if len(sources) > 1 else (alone[sources[0]],) * 2
        best = {key: of(alone[name][key] for name in sources) for key, of in (("brier", min), ("f1", max))}
        rows[row] = {
            **ours,
            **{f"product_{key}": product[key] for key in ("f1", "brier")},
            **{f"best_single_{key}": value for key, value in best.items()},
        }
    return rows


def _fused(known: Sequence[Tree], said: Said, sources: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """The measures of the fused labels, and of a product that takes all sources for independent."""
    evidence, quality = estimated(known, said, sources)
    naive = replace(quality, sources={n: replace(s, dependence={}) for n, s in quality.sources.items()})
    return _measures(known, evidence, quality), _measures(known, evidence, naive)


def estimated(known: Sequence[Tree], said: Said, sources: Sequence[str]) -> tuple[list[TreeEvidence], Reliability]:
    """The counts of each tree with the verdicts of these sources, and how reliable the sources are."""
    found = []
    for i, tree in enumerate(known):
        counts = TreeEvidence.of(tree.searched.tree)
        found.append(replace(counts, labels=with_votes(counts.labels, {name: said[name][i] for name in sources})))
    return found, estimate_reliability(found, DECLARED)


def _measures(known: Sequence[Tree], evidence: Sequence[TreeEvidence], quality: Reliability) -> dict[str, float]:
    found = called = wrong = steps = 0
    squares = 0.0
    for tree, seen in zip(known, evidence, strict=True):
        targets = posterior_correct(seen, quality)
        for node in tree.measured:
            target, truth = targets[node], tree.truth[node]
            right = truth is not None and truth.correct
            assert target is not None, "every measured step has counts"
            squares += (target - right) ** 2
            found, called, wrong = found + (target < 0.5 and not right), called + (target < 0.5), wrong + (not right)
            steps += 1
    return {
        "f1": 2 * found / max(1, called + wrong), "precision": found / max(1, called),
        "recall": found / max(1, wrong), "brier": squares / steps,
    }  # fmt: skip


if __name__ == "__main__":
    main()
