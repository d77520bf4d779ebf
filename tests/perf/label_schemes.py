"""Disputed choices of labels and losses, measured in the built-in world: the demo's reward model is trained with each
change on the demo's labels, and measured on the demo's stored candidates.

    make demo && python -m tests.perf.label_schemes        (about two minutes per run on a core)

All schemes have the same data and the same seeds (`--seeds 3`). Each differs from another scheme as its name says, and
the difference of its best-of-8 to that one's is paired by problem and seed. In the world of the *stranger*, the reward
model starts from a larger backbone that was taught otherwise; in that of the *self*, from the weights of the policy,
whose blind spots it shares. Intervals are 95% bootstrap intervals over problems and seeds. Finished work is not
repeated. With words, only the rows of schemes whose names contain one of them, and of those that they are compared
with, are printed:

    python -m tests.perf.label_schemes value
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from eval.run import main as evaluate
from eval.runs import measures
from eval.runs.config import RunConfig
from eval.runs.pools import Pool
from eval.runs.results import read_runs
from tests.perf.datasets import DEMO, OF_DEMO, flat_trees, labels_of, with_wrong_labels
from tests.perf.policy_arms import effect_of, gain
from tests.perf.results import FOLDER, Effect, write_result
from train.prm import main as train
from train.reward.config import PrmConfig
from vlprm.metrics import auroc
from vlprm.runs.config import parse
from vlprm.scoring.derived import Scores, cautious, valued
from vlprm.search.select import rewards_of
from vlprm.serving.config import ModelConfig

AGGREGATION = "min"


@dataclass(frozen=True)
class Scheme:
    """Fields of the config, of its loss and of its rows that differ from the demo's, and the scheme to compare with.
    `dataset` makes the data that are not the demo's."""

    loss: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    against: str = "demo (soft, keep)"
    dataset: Callable[[], Path] | None = None

    def in_self(self) -> Scheme:
        """The same scheme for a reward model that starts from the policy."""
        return replace(self, model={**self.model, "backbone": "builtin/policy"}, against=f"self: {self.against}")


VALUE_WEIGHTS = (0.5, 1.0)  # weights of a value beside `correct`
RISKS = (0.5, 1.0)  # standard deviations that are taken off a reward
TEXT = {"surprise": False, "freeze": ("vision", "projector")}  # the text layers learn, as in the field's recipes
STATE, VERDICT = "last state, text layers learn", "verdict token of two, text layers learn"
OF_COUNTS, OF_JUDGE, AGREED = "labels of counts alone", "labels of the judge alone", "labels where the two agree"
THROUGH = "labels of outcomes through a step"
UNSURE = "counts, concentration learned"
COUNTS = Scheme(loss={"labels": "counts"}, against=OF_COUNTS)
OUTCOME = Scheme(loss={"labels": "outcome"})
IMPLICIT = {**TEXT, "learning_rate": 1e-4, "head": "implicit"}
IN_BOTH: dict[str, Scheme] = {
    "demo (soft, keep)": Scheme(),
    "hard": Scheme(loss={"labels": "hard"}),
    "stop after the first error": Scheme(rows={"after_first_error": "stop"}),
    "mask after the first error": Scheme(rows={"after_first_error": "mask"}),
    "no error kinds": Scheme(loss={"error_kinds": False}),
    "value": Scheme(loss={"value": 1.0}),
    "ranks": Scheme(loss={"ranks": 1.0}),
    OF_COUNTS: Scheme(dataset=partial(labels_of, "mc")),
    THROUGH: Scheme(dataset=partial(labels_of, "outcome"), against=OF_COUNTS),
    OF_JUDGE: Scheme(dataset=partial(labels_of, "judge")),
    AGREED: Scheme(dataset=partial(labels_of, "consensus")),
    "counts": COUNTS,
    UNSURE: replace(COUNTS, loss={**COUNTS.loss, "concentration": "learned", "evidence": 0.05}, against="counts"),
    "lookback": Scheme(model={"lookback": True}),
    "outcome": OUTCOME,
    "implicit": replace(OUTCOME, model=IMPLICIT, against="outcome"),
}
# What the claims compare in both worlds: a scheme less the scheme that it differs from (1), or the reverse (-1).
COMPARED = {
    "soft less hard": ("hard", -1),
    "stop less keep": ("stop after the first error", 1),
    "kinds less none": ("no error kinds", -1),
    "fused less counts": (OF_COUNTS, -1),
    "fused less judge": (OF_JUDGE, -1),
    "through less own": (THROUGH, 1),
    "fused less agreed": (AGREED, -1),
    "counts less soft": ("counts", 1),
    "concentration less counts": (UNSURE, 1),
    "ranks less none": ("ranks", 1),
    "value less none": ("value", 1),
    "lookback less none": ("lookback", 1),
    "steps less outcomes": ("outcome", -1),
    "implicit less outcomes": ("implicit", 1),
}
WRONG_STEPS, WRONG_ANSWERS = "40% of the steps' labels wrong", "40% of the answers' labels wrong"
OTHER_DATA = {
    WRONG_STEPS: Scheme(dataset=partial(with_wrong_labels, "steps", 0.4)),
    WRONG_ANSWERS: Scheme(dataset=partial(with_wrong_labels, "answers", 0.4), against=WRONG_STEPS),
    "flat trees at equal tokens": Scheme(dataset=flat_trees),
}
SCHEMES: dict[str, Scheme] = {
    **IN_BOTH,
    "wrong steps weigh 2": Scheme(loss={"wrong_weight": 2.0}),
    "balanced in question types": Scheme(loss={"balance": True}),
    "pairs of siblings": Scheme(loss={"siblings": 1.0}),
    "pairs of candidates": Scheme(loss={"candidates": 1.0}),
    "problems with both outcomes alone": Scheme(rows={"mixed": True}),
    STATE: Scheme(model=TEXT),
    VERDICT: Scheme(model={**TEXT, "head": "verdict"}, against=STATE),
    "verdict token of the vocabulary": Scheme({"vocabulary": True}, model={**TEXT, "head": "verdict"}, against=VERDICT),
    **{f"self: {name}": scheme.in_self() for name, scheme in (IN_BOTH | OTHER_DATA).items()},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    words = asked.words
    named = {name for name in SCHEMES if not words or any(word in name for word in words)}
    named |= {SCHEMES[name].against for name in named}
    right: dict[str, Any] = {}
    rows = [measured(name, scheme, asked.seeds, right) for name, scheme in SCHEMES.items() if name in named]
    if words:
        return
    spread = max(row["step_auroc"] for row in rows) - min(row["step_auroc"] for row in rows)
    write_result("label_schemes", rows, {"spread_of_step_auroc": (spread, 0.0)}, effects(rows))


def effects(rows: Sequence[dict[str, Any]]) -> dict[str, Effect]:
    """What the claims compare: best of 8 with a scheme, less best of 8 with the scheme that it differs from."""

    of = {row["scheme"]: row for row in rows}

    def less(scheme: str, sign: int = 1) -> Effect:
        return points(of[scheme]["best_of_8_less"], sign)

    def points(found: dict[str, Any], sign: int = 1) -> Effect:
        ends = sorted(sign * end for end in found["ci"])
        return effect_of({"gain": sign * found["gain"], "ci": ends}, rows[0]["problems"], rows[0]["seeds"])

    found = {
        "wrong answers less wrong steps, self": less(f"self: {WRONG_ANSWERS}"),
        "omega less flat, self": less("self: flat trees at equal tokens", -1),
    }
    for world, suffix in (("", ""), ("self: ", ", self")):
        for effect, (scheme, sign) in COMPARED.items():
            found[effect + suffix] = less(world + scheme, sign)
        found[f"risk less none{suffix}"] = points(of[world + UNSURE]["best_of_8_by_risk"][RISKS[0]])
    return found


def measured(name: str, scheme: Scheme, seeds: int, right: dict[str, Any]) -> dict[str, Any]:
    """The row of a scheme. `right` holds (S, P) the accuracy of the choices of earlier schemes; this one's is added."""
    runs = [scored(name, scheme, seed) for seed in range(seeds)]
    right[name] = ours_SP = best_of_8(runs)
    steps = [measures.steps(pools, AGGREGATION) for pools in runs]
    chosen = [measures.selection(pools, AGGREGATION) for pools in runs]
    by_value = {w: best_of_8(runs, partial(valued, weight=w)) for w in VALUE_WEIGHTS if scheme.loss.get("value")}
    unsure = scheme.loss.get("concentration") == "learned"
    by_risk = {risk: best_of_8(runs, partial(cautious, risk=risk)) for risk in RISKS if unsure}
    row = {
        "scheme": name,
        "problems": ours_SP.shape[1],
        "seeds": seeds,
        "step_auroc": fmean(of["auroc"] for of in steps),
        "step_auroc_ci": auroc_interval(runs),
        "within_problem": fmean(of["within_problem_outcome_accuracy"] for of in steps),
        "best_of_8": gain(ours_SP, np.zeros_like(ours_SP)),
        "weighted_vote": 100 * fmean(of["weighted_majority"]["accuracy"] for of in chosen),
        "against": scheme.against,
        "best_of_8_less": gain(ours_SP, right[scheme.against]),
        "best_of_8_by_value": {weight: gain(of_SP, ours_SP) for weight, of_SP in by_value.items()},
        "best_of_8_by_risk": {risk: gain(of_SP, ours_SP) for risk, of_SP in by_risk.items()},
    }
    print(row, flush=True)
    return row


def scored(name: str, scheme: Scheme, seed: int) -> list[Pool]:
    """The demo's pools with the scores of a scheme's reward model."""
    prm = trained(name, scheme, seed)
    run = prm.parent / "eval"
    demo = parse(RunConfig, ["--config", "configs/demo/eval.yaml"])
    evaluate(replace(demo, run=run, reward_model=ModelConfig(str(prm)), whole=False, pool=DEMO / "eval"))
    return list(read_runs([run], pools=True, steps=True)[0].pools.values())


def best_of_8(runs: Sequence[list[Pool]], derived: Callable[[Scores], Scores] = list) -> Any:
    """(S, P) how often the best of eight is right, by the rewards of derived scores."""
    key = f"prm_{AGGREGATION}"
    return np.array([measures.rightness(rewarded(pools, derived), AGGREGATION)[key] for pools in runs])


def rewarded(pools: list[Pool], derived: Callable[[Scores], Scores]) -> list[Pool]:
    """The pools with the rewards of derived scores."""
    return [
        replace(
            pool,
            candidates=tuple(
                replace(candidate, rewards=rewards_of(derived([*scores])))
                for candidate, scores in zip(pool.candidates, pool.scores, strict=True)
            ),
        )
        for pool in pools
    ]


def trained(name: str, scheme: Scheme, seed: int) -> Path:
    """The folder of a scheme's reward model, which is trained unless it is there."""
    prm = FOLDER / "label_schemes" / re.sub(r"\W+", "_", name).strip("_") / str(seed) / "prm"
    demo = parse(PrmConfig, ["--config", "configs/demo/prm.yaml"])
    config = replace(
        demo, run=prm, seed=demo.seed + seed,
        dataset=scheme.dataset() if scheme.dataset else OF_DEMO,
        loss=replace(demo.loss, **scheme.loss), rows=replace(demo.rows, **scheme.rows), **scheme.model,
    )  # fmt: skip
    train(config)
    return prm


def auroc_interval(runs: Sequence[list[Pool]]) -> tuple[float, float]:
    """Interval over resampled problems of the AUROC of all their steps, of all seeds."""
    of_problem = [
        [
            (s.correct, t.correct)
            for pool in pools
            for scores, truth in zip(pool.scores, pool.truth or (), strict=True)
            for s, t in zip(scores, truth, strict=True)
            if s and t
        ]
        for pools in zip(*runs, strict=True)
    ]
    rng = np.random.default_rng(0)
    values = []
    for _ in range(200):
        drawn = [pair for i in rng.integers(0, len(of_problem), len(of_problem)) for pair in of_problem[i]]
        values.append(auroc([reward for reward, _ in drawn], [correct for _, correct in drawn]))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
