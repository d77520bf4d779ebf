"""What test-time compute buys on the built-in tasks: every search method, at equal N, equal tokens and equal FLOPs.

    make demo && python -m tests.perf.tts

One pool of candidates is sampled and scored per problem; the methods that choose from complete solutions use its first
eight. The others search with eight next steps at each depth, or with eight candidates. Each is compared with plain
best-of-N at as many tokens, and at as many FLOPs, as the method took for the same problem, on candidates of the pool in
their order. Tokens are those that policy, critic and scorer sample and read, images included; FLOPs are 2 per token and
parameter. Intervals are 95% bootstrap intervals over problems; differences are paired. Finished work
is not repeated. About half an hour on two cores.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.perf.datasets import DEMO, critic
from tests.perf.results import FOLDER, Effect, points, write_result
from vlprm.answers import is_correct
from vlprm.metrics import bootstrap_interval
from vlprm.model.loading import Checkpoint, load_policy
from vlprm.model.reward_loading import load_reward_model
from vlprm.policy.local import LocalPolicy
from vlprm.runs.journal import Records
from vlprm.schema import Problem, Solution, StepScore, from_json, to_json
from vlprm.scoring.local import LocalScorer
from vlprm.scoring.tree import score_whole
from vlprm.search import Cost, Critic, ScoredSolution, SearchConfig, SearchResult, select, solve
from vlprm.search.select import Candidate, Shares
from vlprm.search.tokens import UNITS, Parameters, Spend, Unit, affordable, is_too_small, spend_of, spend_of_first
from vlprm.tasks import TASKS

REWARD_MODEL = DEMO / "prm"
PROBLEMS, POOL, UNIT = 500, 24, 50
CONFIG = SearchConfig(n=8, width=4, aggregation="min", seed=7, max_tokens=160)
SEARCHES = (
    "adaptive",
    "greedy",
    "step_beam",
    "duplicating_beam",
    "dvts",
    "rebase",
    "cut_and_regenerate",
    "refined_best_of_n",
)
UNSCORED = ("pass_at_1", "majority", f"majority of {POOL}")  # rows that need no scorer
PERCEPTUAL = ("count_grid", "chart", "figure", "fine_print")  # tasks most of whose errors are misreadings
Pools = dict[str, dict[str, Any]]


def main() -> None:
    problems = [task.problem("test", 1000 + i) for i in range(PROBLEMS // len(TASKS)) for task in TASKS.values()]
    runs = {method: records_of(method, problems) for method in ("pool", *SEARCHES, "without_zoom")}
    spends = pool_spends(problems, runs["pool"], parameters())
    rows = [*pool_rows(problems, runs["pool"], spends), *(search_row(m, problems, runs, spends) for m in SEARCHES)]
    of = {row["method"]: row for row in rows}
    perceptual = [r for r in range(len(problems)) if problems[r].task in PERCEPTUAL]
    gains = {unit: float(np.array(of["refined_best_of_n"]["minus"][unit])[perceptual].mean()) for unit in UNITS}
    zoom = zoom_row(problems, runs)
    found = effects(of, zoom)
    for row in rows:
        row.pop("minus", None)
        row.pop("right")
        print(row)
    print(zoom)
    write_result("tts", [*rows, zoom], {
        "bon_minus_majority": (of["best_of_n"]["accuracy"] - of["majority"]["accuracy"], 0.0),
        "refined_minus_bon_equal_tokens": (gains["tokens"], 0.0),
        "refined_minus_bon_equal_flops": (gains["FLOPs"], 0.0),
        "zoom_gain": (zoom["gain"], 0.2),
    }, found)  # fmt: skip


def effects(of: dict[str, dict[str, Any]], zoom: dict[str, Any]) -> dict[str, Effect]:
    """What the claims compare, in points of accuracy, paired by problem."""

    def less(one: Any, other: Any) -> Effect:
        return points(100 * (np.array(one) - np.array(other)))

    steps = of["best_of_n"]["right"]
    zooms = (100 * end for end in (zoom["gain"], *zoom["ci"]))
    return {
        "steps less whole": less(steps, of["whole_solution"]["right"]),
        "best of n less vote": less(steps, of["majority"]["right"]),
        "greedy less best of n": less(of["greedy"]["minus"]["tokens"], 0.0),
        "step beam less best of n": less(of["step_beam"]["minus"]["tokens"], 0.0),
        "refined less best of n": less(of["refined_best_of_n"]["minus"]["tokens"], 0.0),
        "zoom less none": Effect(*zooms, "points", zoom["problems"]),
    }


# --- what is sampled, once


def records_of(method: str, problems: Sequence[Problem]) -> Pools:
    records = Records(FOLDER / "tts_costs" / f"{method}.jsonl")
    if waiting := [p for p in problems if p.id not in records.keys and wanted(method, p)]:
        for unit in (waiting[i : i + UNIT] for i in range(0, len(waiting), UNIT)):
            found = asyncio.run(searched(method, unit))
            records.append(record(f) for f in found)
            print(method, len(records.keys), flush=True)
    return {r["key"]: r for r in records}


def wanted(method: str, problem: Problem) -> bool:
    return method != "without_zoom" or problem.task == "fine_print"


_LOADED: dict[str, Checkpoint] = {}


def loaded(name: str) -> Checkpoint:
    if name not in _LOADED:
        _LOADED[name] = load_policy(name) if name.startswith("builtin") else load_reward_model(name)
    return _LOADED[name]


@cache
def critic_folder() -> Path:
    return critic("critic")


async def searched(method: str, problems: Sequence[Problem]) -> list[SearchResult]:
    policy, asked = LocalPolicy(loaded("builtin/policy")), None
    scorer, config, name = LocalScorer(loaded(str(REWARD_MODEL))), CONFIG, method
    if method == "pool":
        name, config = "best_of_n", replace(CONFIG, n=POOL)
    if method == "without_zoom":
        name, policy = "best_of_n", LocalPolicy(blindfolded())
    if method == "refined_best_of_n":
        engine = LocalPolicy(loaded(str(critic_folder())))
        asked = Critic(engine, engine.checkpoint.config.critiques)
    return list(await asyncio.gather(*(solve(name, p, policy, scorer, config, asked) for p in problems)))


def blindfolded() -> Checkpoint:
    """The policy without the token that begins its zoom steps."""
    policy = load_policy("builtin/policy")
    words = policy.inputs.tokenizer("[zoom]", add_special_tokens=False)["input_ids"]
    tag = [i for i in words if "zoom" in policy.inputs.tokenizer.decode([i])]
    assert tag, "the tag of zoom steps has no token of its own"
    policy.inputs.banned_ids = (*policy.inputs.banned_ids, *tag)
    return policy


def parameters() -> Parameters:
    models = loaded("builtin/policy"), loaded(str(REWARD_MODEL)), loaded(str(critic_folder()))
    return Parameters(*(sum(p.numel() for p in checkpoint.model.parameters()) for checkpoint in models))


def record(found: SearchResult) -> dict[str, Any]:
    return {
        "key": found.problem_id,
        "pool": [
            {
                "solution": to_json(s.solution),
                "scores": [c and [c.correct, c.surprise] for c in s.scores],
                "read": s.read,
            }
            for s in found.pool
        ],
        "shares": found.shares,
        "cost": asdict(found.cost),
    }


def candidates(record: dict[str, Any], n: int) -> list[Candidate]:
    return [scored_of(entry).candidate for entry in record["pool"][:n]]


def scored_of(entry: dict[str, Any]) -> ScoredSolution:
    scores = tuple(s and StepScore(s[0], None, None, s[1]) for s in entry["scores"])
    return ScoredSolution(from_json(Solution, entry["solution"]), scores)


# --- what is measured


def expected(problem: Problem, pool: Sequence[Candidate], shares: Shares) -> float:
    right = [is_correct(c.answer, str(problem.answer), problem.answer_type) for c in pool]
    return sum(share for share, r in zip(shares, right, strict=True) if r)


def pool_spends(
    problems: Sequence[Problem], pools: Pools, known: Parameters, scored: bool = True
) -> dict[str, list[Spend]]:
    """What the first 1, 2, ... candidates of each problem cost the policy and, if they are scored, the scorer."""
    found = {}
    for problem in problems:
        spent = [
            (entry["solution"]["tokens"], entry["solution"]["read"], scored * entry["read"])
            for entry in pools[problem.id]["pool"]
        ]
        prompt = pools[problem.id]["cost"]["policy_read"] - sum(read for _, read, _ in spent)
        found[problem.id] = spend_of_first(spent, prompt, known)
    return found


def pool_rows(problems: Sequence[Problem], pools: Pools, spends: dict[str, list[Spend]]) -> Iterator[dict[str, Any]]:
    """The methods that choose from complete solutions, and best-of-N with larger pools."""
    n, aggregation = CONFIG.n, CONFIG.aggregation
    choosers: dict[str, Any] = {
        "pass_at_1": (1, select.sample),
        "majority": (n, select.majority),
        "likeliest (no training)": (n, select.likeliest),
        "weighted_majority": (n, lambda pool: select.weighted_majority(pool, aggregation)),
        "best_of_n": (n, lambda pool: select.best_of_n(pool, aggregation)),
        f"best_of_{POOL}": (POOL, lambda pool: select.best_of_n(pool, aggregation)),
        f"majority of {POOL}": (POOL, select.majority),
    }
    unscored = pool_spends(problems, pools, parameters(), scored=False)
    for name, (size, choose) in choosers.items():
        of_problem = [candidates(pools[p.id], size) for p in problems]
        right = [expected(p, pool, choose(pool)) for p, pool in zip(problems, of_problem, strict=True)]
        costs = unscored if name in UNSCORED else spends
        yield row(name, right, [costs[p.id][size - 1] for p in problems])
    wholes = whole_rewards(problems, pools, n)
    right = [expected(p, pool, select.whole_solution(pool)) for p, pool in zip(problems, wholes, strict=True)]
    yield row("whole_solution", right, [spends[p.id][n - 1] for p in problems])


def whole_rewards(problems: Sequence[Problem], pools: Pools, n: int) -> list[list[Candidate]]:
    found = []
    for problem in problems:
        entries = [from_json(Solution, entry["solution"]) for entry in pools[problem.id]["pool"][:n]]
        wholes = score_whole(loaded(str(REWARD_MODEL)), [(problem, s.steps) for s in entries])
        found.append([Candidate(s.answer, None, whole) for s, whole in zip(entries, wholes, strict=True)])
    return found


def search_row(
    method: str, problems: Sequence[Problem], runs: dict[str, Pools], spends: dict[str, list[Spend]]
) -> dict[str, Any]:
    known, found = parameters(), [runs[method][problem.id] for problem in problems]
    spent = [spend_of(Cost(**of["cost"]), known) for of in found]
    pools = [candidates(of, len(of["pool"])) for of in found]
    right = [expected(p, pool, of["shares"]) for p, pool, of in zip(problems, pools, found, strict=True)]
    made: dict[str, Any] = {**row(method, right, spent), "minus": {}}
    for unit in UNITS:
        plain = [best_at(p, runs["pool"][p.id], spends[p.id], of, unit) for p, of in zip(problems, spent, strict=True)]
        made["minus"][unit] = minus = np.array(right) - np.array(plain)
        made[f"bon_equal_{unit}"], made[f"minus_bon_equal_{unit}"] = float(np.mean(plain)), float(minus.mean())
        made[f"minus_bon_equal_{unit}_ci"] = bootstrap_interval(minus)
        ended = [is_too_small(spends[p.id], of, unit) for p, of in zip(problems, spent, strict=True)]
        made[f"pool_too_small_{unit}"] = sum(ended)
    return made


def best_at(problem: Problem, pool: dict[str, Any], first: Sequence[Spend], spent: Spend, unit: Unit) -> float:
    """The accuracy of plain best-of-N with as much as was spent."""
    afforded = candidates(pool, affordable(first, spent, unit))
    return expected(problem, afforded, select.best_of_n(afforded, CONFIG.aggregation))


def row(method: str, right: Sequence[float], spends: Sequence[Spend]) -> dict[str, Any]:
    """`tokens` are the sampled and the read ones together."""
    costs = {
        name: float(np.mean([getattr(s, name) for s in spends])) for name in ("sampled", "read", "tokens", "flops")
    }
    accuracy = {"accuracy": float(np.mean(right)), "ci": bootstrap_interval(right)}
    return {"method": method, **accuracy, **costs, "right": right}


def zoom_row(problems: Sequence[Problem], runs: dict[str, Pools]) -> dict[str, Any]:
    """The policy's mean accuracy on fine print, with its zooms and without."""
    fine = [p for p in problems if p.task == "fine_print"]
    means = {
        name: np.array([expected(p, pool := candidates(runs[name][p.id], CONFIG.n), select.sample(pool)) for p in fine])
        for name in ("pool", "without_zoom")
    }
    gain = means["pool"] - means["without_zoom"]
    shares = {"with": float(means["pool"].mean()), "without": float(means["without_zoom"].mean())}
    difference = {"gain": float(gain.mean()), "ci": bootstrap_interval(gain), "problems": len(fine)}
    return {"method": "zoom on fine print", **shares, **difference}


if __name__ == "__main__":
    main()
