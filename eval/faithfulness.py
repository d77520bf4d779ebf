"""Measure whether a policy uses its crops: zooms against the true regions, and answers after other crops.

python -m eval.faithfulness --config configs/demo/faithfulness.yaml
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from eval.runs.config import FaithfulnessConfig
from eval.runs.tracked import all_tracked
from vlprm.answers import is_correct
from vlprm.errors import UserError
from vlprm.metrics import bootstrap_interval
from vlprm.policy import Policy, Request, all_answers
from vlprm.policy.open import folders_of, open_policy, placed
from vlprm.policy.rollout import rollouts
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, write_atomically
from vlprm.schema import Problem, Region, Solution, StepLabel
from vlprm.steps import parse_step
from vlprm.tasks import Tasks, load_tasks, problem_by_id, task_of
from vlprm.tasks.scene import rng_for
from vlprm.tasks.synthetic import SyntheticFamily, item_ids, truthful
from vlprm.zoom.counterfactual import blank_like, elsewhere, prefix_with
from vlprm.zoom.execute import View, execute_zoom, whole_images
from vlprm.zoom.labels import ZoomLabel, label_zooms, true_region, zoom_label

Measures = dict[str, float | None]  # measures of one solution; None for no result
CONTROLS = ("own", "blank", "random", "right")


def main(config: FaithfulnessConfig) -> None:
    """Write the measures of the policy's zooms to `results.json` and print them."""
    tasks = load_tasks(config.tasks)
    problems = [problem_by_id(i, tasks) for i in item_ids(list(tasks.values()), config.split, config.problems)]
    for family in tasks.values():
        if not family.regions(family.scene(config.split, 0)):
            raise UserError(f"{family.name} has no true regions for its questions; pass tasks such as fine_print")
    config = dataclasses.replace(config, policy=placed(config.policy))
    open_run(config.run, dump(config), config.seed, *folders_of([config.policy]))
    rows, stops = asyncio.run(_on_engine(problems, tasks, config))
    results = {**summary(rows), "stops": dict(stops.most_common())}
    write_atomically(config.run / "results.json", json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


async def _on_engine(
    problems: Sequence[Problem], tasks: Tasks, config: FaithfulnessConfig
) -> tuple[list[list[Measures]], Counter[str]]:
    async with open_policy(config.policy) as engine:
        return await measure(engine, problems, tasks, config)


async def measure(
    engine: Policy, problems: Sequence[Problem], tasks: Tasks, config: FaithfulnessConfig
) -> tuple[list[list[Measures]], Counter[str]]:
    """Measures of each solution of each problem, and the number of solutions per stop reason."""
    asked_first = (
        rollouts(engine, Request(p, (), config.n, p.id, config.seed, config.temperature, config.max_tokens))
        for p in problems
    )
    pools = await all_tracked(asked_first, "pools")
    families = [task_of(p.task, tasks) for p in problems]
    asked = (_rows(engine, *of_problem, config) for of_problem in zip(problems, pools, families, strict=True))
    return await all_tracked(asked, "problems"), Counter(solution.stop for pool in pools for solution in pool)


async def _rows(
    engine: Policy, problem: Problem, pool: Sequence[Solution], family: SyntheticFamily, config: FaithfulnessConfig
) -> list[Measures]:
    keys = [f"{problem.id}/{i}" for i in range(len(pool))]
    return await all_answers(_row(engine, problem, s, k, family, config) for s, k in zip(pool, keys, strict=True))


async def _row(
    engine: Policy,
    problem: Problem,
    solution: Solution,
    key: str,
    family: SyntheticFamily,
    config: FaithfulnessConfig,
) -> Measures:
    truths = family.regions(problem.meta["scene"])
    labels = label_zooms(solution.steps, truths)
    regions = [step.region for step in solution.steps if step.region is not None]
    row: Measures = {
        "zooms": len(labels),
        "tokens": solution.tokens,
        "crop_tokens": sum(engine.crop_tokens(problem, region) for region in regions),
        "zooms_at_all": bool(regions),
        "right": is_correct(solution.answer, str(problem.answer), problem.answer_type),
        **_of_crops(list(labels.values())),
    }
    if solution.answer is None or not regions:
        return row
    last = max(k for k, step in enumerate(solution.steps) if step.region is not None)
    crops = _shown_instead(problem, solution, last, family, engine, config.seed)
    # The same random draws for every crop, so that only the crop changes the answers.
    chance = (config.rollouts, f"{key}/after", config.seed, config.temperature, config.max_tokens)
    asked = {
        name: Request(problem, prefix_with(solution.steps, last, region), *chance) for name, region in crops.items()
    }
    after = dict(zip(asked, await all_answers(rollouts(engine, r) for r in asked.values()), strict=True))
    counts = {name: _counts(problem, found) for name, found in after.items()}
    for name, found in after.items():
        changed = [s.answer != solution.answer for s in found if s.answer is not None]
        row[f"no_answer_{name}"] = 1 - len(changed) / len(found)
        row[f"changed_{name}"] = _mean(changed)
        row[f"right_{name}"] = counts[name].mc_correct / counts[name].mc_valid if counts[name].mc_valid else None
    used = zoom_label(solution.steps[last], (), None, counts["own"], counts["blank"]).used
    return {**row, "used": used}


def _of_crops(labels: Sequence[ZoomLabel]) -> Measures:
    credits = [label.credit for label in labels]
    return {
        "coverage": _mean([label.coverage for label in labels if label.coverage is not None]),
        "tightness": _mean([label.tightness for label in labels if label.tightness is not None]),
        **{f"{kind}_zooms": _mean([c == kind for c in credits]) for kind in ("correct", "redundant", "erroneous")},
    }


def _shown_instead(
    problem: Problem, solution: Solution, zoom: int, family: SyntheticFamily, engine: Policy, seed: int
) -> dict[str, Region]:
    """The crops to show after step `zoom`: the policy's own and the controls."""
    step, scene = solution.steps[zoom], problem.meta["scene"]
    assert step.region is not None
    frame = whole_images(problem)[step.region.image]
    truth = true_region(step, family.regions(scene))
    assert truth is not None
    crops = {
        "own": step.region,
        "blank": blank_like(step.region),
        "random": elsewhere(step.region, frame, truth, rng_for("elsewhere", seed, problem.id, zoom)),
    }
    return {**crops, "right": _right_crop(problem, family.solve(scene, truthful), truth)}


def _right_crop(problem: Problem, texts: Sequence[str], truth: Region) -> Region:
    """The zoom region of the correct solution that overlaps most with the true region."""
    views = [View(region, (int(region.x1), int(region.y1))) for region in whole_images(problem)]
    zooms = [execute_zoom(step, "relative_1000", views) for step in map(parse_step, texts) if step.kind == "zoom"]
    regions = [zoom.region for zoom in zooms if not isinstance(zoom, str) and zoom.region is not None]
    return max(regions, key=truth.overlap)


def _counts(problem: Problem, solutions: Sequence[Solution]) -> StepLabel:
    right = [is_correct(s.answer, str(problem.answer), problem.answer_type) for s in solutions]
    return StepLabel(right.count(True), len(right) - right.count(None), len(right))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def summary(problems: Sequence[Sequence[Measures]]) -> dict[str, Any]:
    """Means over problems of the per-problem means, with 95% bootstrap intervals over problems. `of`: number of
    problems with a result."""
    names = list(dict.fromkeys(name for rows in problems for row in rows for name in row))
    results = {name: _interval([_of_problem(rows, name) for rows in problems]) for name in names}
    for name in CONTROLS[1:]:
        pairs = ((_of_problem(rows, f"changed_{name}"), _of_problem(rows, "changed_own")) for rows in problems)
        shifts = [None if None in pair else pair[0] - pair[1] for pair in pairs]  # type: ignore[operator]
        results[f"changed_{name}_less_own"] = _interval(shifts)
    return results


def _of_problem(rows: Sequence[Mapping[str, float | None]], name: str) -> float | None:
    return _mean([value for row in rows if (value := row.get(name)) is not None])


def _interval(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {"mean": _mean(known), "ci": list(bootstrap_interval(known)) if known else None, "of": len(known)}


if __name__ == "__main__":
    run(main, FaithfulnessConfig)
