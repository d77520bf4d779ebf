"""Scorers: in process, several together, and by sampled critiques."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import executed, solved
from vlprm.errors import ProblemError
from vlprm.images import png
from vlprm.model.loading import Checkpoint, load_policy
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.policy import Continuation, Request
from vlprm.policy.critique import critique_of, critique_text
from vlprm.policy.local import LocalPolicy
from vlprm.policy.rollout import OPEN, next_steps
from vlprm.prompts import critique_template
from vlprm.schema import Problem, Region, Solution, Step, StepScore
from vlprm.scoring import Scored
from vlprm.scoring.config import ScorerConfig
from vlprm.scoring.critiques import CritiqueScorer
from vlprm.scoring.ensemble import Ensemble
from vlprm.scoring.local import LocalScorer, WholeSolutionScorer
from vlprm.scoring.open import open_scorer
from vlprm.scoring.tree import score, score_steps, score_whole
from vlprm.search import SearchConfig, SearchResult, solve
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS
from vlprm.zoom.policy import ZoomPolicy

PROBLEMS = [TASKS[name].problem("test", 1) for name in TASKS]
STEPS = {p.id: [executed(step) for step in solved(p)] for p in PROBLEMS}


def close(a: Scored, b: list[list[StepScore | None]]) -> bool:
    pairs = [pair for x, y in zip(a.steps, b, strict=True) for pair in zip(x, y, strict=True)]
    return all(p is not None and q is not None and abs(p.correct - q.correct) < 1e-5 for p, q in pairs)


def test_a_search_reads_each_token_once(checkpoint: Checkpoint) -> None:
    """Many problems run concurrently, step by step; a prompt is read again only after its problem was forgotten."""
    scorer, inputs = LocalScorer(checkpoint), checkpoint.inputs

    async def grow(problem: Problem) -> int:
        tokens = 0
        for depth in range(1, len(STEPS[problem.id]) + 1):
            found = await scorer.score(problem, [STEPS[problem.id][:depth]], "growing")
            assert close(found, score_steps(checkpoint, [(problem, STEPS[problem.id][:depth])]))
            tokens += found.tokens
        scorer.forget(problem, "growing")
        again = await scorer.score(problem, [STEPS[problem.id][:1]], "growing")
        assert again.tokens == len(inputs.row(problem, STEPS[problem.id][:1]).ids)
        return tokens

    async def all_of_them() -> list[int]:
        return list(await asyncio.gather(*map(grow, PROBLEMS)))

    assert asyncio.run(all_of_them()) == [len(inputs.row(p, STEPS[p.id]).ids) for p in PROBLEMS]


def test_a_whole_solution_is_read_as_one_step(checkpoint: Checkpoint) -> None:
    problem, steps = PROBLEMS[0], STEPS[PROBLEMS[0].id]
    found = asyncio.run(WholeSolutionScorer(LocalScorer(checkpoint)).score(problem, [steps]))
    last = found.steps[0][-1]
    assert last is not None
    assert last.correct == pytest.approx(score_whole(checkpoint, [(problem, steps)])[0], abs=1e-5)


def test_folders_are_opened_as_what_is_asked_of_them(checkpoint: Checkpoint, backbone: Path, tmp_path: Path) -> None:
    """They open as a scorer of whole solutions, and as the mean of two reward models, one of which always gives the
    same score."""
    problem, steps = PROBLEMS[0], STEPS[PROBLEMS[0].id]
    save_reward_model(checkpoint, tmp_path / "a", checkpoint.config)
    new = load_reward_model(backbone, new_head="step")
    save_reward_model(new, tmp_path / "new", new.config)

    async def last(names: list[str], kind: str) -> float:
        asked = ScorerConfig(kind)  # type: ignore[arg-type]
        models = [ModelConfig(str(tmp_path / name), device="cpu") for name in names]
        async with open_scorer(models, asked) as scorer:
            score = (await scorer.score(problem, [steps])).steps[0][-1]
        assert score is not None
        return score.correct

    alone = score(checkpoint, [(problem, steps)])[0][-1]
    assert alone is not None
    assert asyncio.run(last(["a"], "steps")) == pytest.approx(alone, abs=1e-5)
    whole = score_whole(checkpoint, [(problem, steps)])[0]
    assert whole != pytest.approx(alone, abs=1e-4)
    assert asyncio.run(last(["a"], "whole")) == pytest.approx(whole, abs=1e-5)
    both = asyncio.run(last(["a", "new"], "steps"))
    assert both == pytest.approx((alone + 1 / 3) / 2, abs=1e-5)


def test_two_requests_about_one_problem_share_what_is_read(checkpoint: Checkpoint) -> None:
    problem = PROBLEMS[0]
    asked = [[STEPS[problem.id]], [STEPS[problem.id][:2]], [[*STEPS[problem.id][:1], STEPS[problem.id][0]]]]

    async def ask() -> list[Scored]:
        scorer = LocalScorer(checkpoint)
        return list(await asyncio.gather(*(scorer.score(problem, solutions, "same") for solutions in asked)))

    found = asyncio.run(ask())
    for scored, solutions in zip(found, asked, strict=True):
        assert close(scored, score_steps(checkpoint, [(problem, steps) for steps in solutions]))
    assert found[1].tokens == 0
    inputs, (first, _, other) = checkpoint.inputs, [steps for solutions in asked for steps in solutions]
    again = asyncio.run(LocalScorer(checkpoint).score(problem, [first, first[:2], other]))
    assert again.read == [len(inputs.row(problem, first).ids), 0, len(inputs.step(problem, other[1], other[0]).ids)]


@pytest.mark.parametrize("order", [1, -1])
def test_attempts_at_one_problem_side_by_side_cost_what_each_costs_alone(checkpoint: Checkpoint, order: int) -> None:
    """Whichever attempt ends first, the tokens that it has read or drops do not change the cost of the other."""
    problem, policy = PROBLEMS[0], LocalPolicy(load_policy("builtin/policy"))
    configs = [SearchConfig(n=2, width=2, max_steps=steps, max_tokens=80) for steps in (1, 4)][::order]

    async def together() -> list[SearchResult]:
        scorer = LocalScorer(checkpoint)
        found = await asyncio.gather(*(solve("step_beam", problem, policy, scorer, config) for config in configs))
        assert not scorer.memory.trees
        return list(found)

    alone = [asyncio.run(solve("step_beam", problem, policy, LocalScorer(checkpoint), config)) for config in configs]
    for one, beside in zip(alone, asyncio.run(together()), strict=True):
        assert beside.cost.scorer_read == one.cost.scorer_read > 0
        assert [s.solution for s in beside.pool] == [s.solution for s in one.pool]


def test_a_model_that_gives_no_numbers_stops_the_run(checkpoint: Checkpoint, backbone: Path) -> None:
    broken = load_reward_model(backbone, new_head="step")
    torch.nn.init.constant_(broken.model.score.weight, float("nan"))
    with pytest.raises(ValueError, match="not finite numbers"):
        asyncio.run(LocalScorer(broken).score(PROBLEMS[0], [STEPS[PROBLEMS[0].id]]))


def test_an_image_too_narrow_to_be_shown_is_said_to_be_so(checkpoint: Checkpoint) -> None:
    """The scorer refuses it, a search refuses it before it begins, and a run of benchmarks counts it."""
    long = Problem("long", "t", "How many?", (png(Image.new("RGB", (2010, 10))),), "2", "integer")
    policy, scorer = LocalPolicy(load_policy("builtin/policy")), LocalScorer(checkpoint)
    tall = replace(long, images=(png(Image.new("RGB", (10, 2010))),))
    with pytest.raises(ProblemError, match="is 2010 x 10, with an aspect ratio above 200; pad it") as caught:
        score(checkpoint, [(long, [Step("answer", "[answer] 2")])])
    assert caught.value.cause == "image_aspect"
    for method in ("best_of_n", "step_beam"):
        with pytest.raises(ProblemError, match="is 10 x 2010"):
            asyncio.run(solve(method, tall, policy, scorer, SearchConfig(n=2, width=2)))


class Fixed:
    """A scorer that gives every step the same score."""

    def __init__(self, said: StepScore | None) -> None:
        self.said = said

    async def score(self, problem: Problem, solutions: Sequence[Sequence[Step]], attempt: Hashable = None) -> Scored:
        return Scored([[self.said] * len(steps) for steps in solutions], [5] * len(solutions))

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        pass


def test_an_ensemble_is_the_mean_of_those_that_have_a_score() -> None:
    problem, steps = PROBLEMS[0], STEPS[PROBLEMS[0].id][:1]
    high, low = Fixed(StepScore(0.8, 0.1, 0.1)), Fixed(StepScore(0.2, 0.5, 0.3))

    def of(*scorers: Fixed) -> Scored:
        return asyncio.run(Ensemble(scorers).score(problem, [steps]))

    assert of(high, low, Fixed(None)) == Scored([[StepScore(0.5, 0.3, 0.2, spread=pytest.approx(0.3))]], [15])
    assert of(high, Fixed(StepScore(0.4, None, None))).steps == [
        [StepScore(pytest.approx(0.6), None, None, None, pytest.approx(0.2))]
    ]
    assert of(Fixed(None), Fixed(None)).steps == [[None]]


def test_an_ensemble_ranks_all_candidates_by_the_same_scorers() -> None:
    """A severe scorer that fails on the second candidate says nothing about the first either."""
    problem = PROBLEMS[0]
    worse, better = STEPS[problem.id][:1], STEPS[problem.id][:2]

    class Failing(Fixed):
        async def score(
            self, problem: Problem, solutions: Sequence[Sequence[Step]], attempt: Hashable = None
        ) -> Scored:
            steps: list[list[StepScore | None]] = [[self.said], [self.said, None]]
            return Scored(steps, [5, 5])

    members = Fixed(StepScore(0.5, None, None)), Failing(StepScore(0.1, None, None))
    found = asyncio.run(Ensemble(members).score(problem, [worse, better]))
    alone = StepScore(0.5, None, None, spread=0.0)
    assert found.steps == [[alone], [alone] * 2]


FIRST = critique_template("plain_critique@2")


class Critics:
    """Critics that find this many steps right and the next one wrong; with None, their text cannot be read."""

    dialect = "relative_1000"
    zoom = ZoomPolicy()

    def __init__(self, faults: Sequence[int | None]) -> None:
        self.faults = list(faults)

    async def sample(self, request: Request) -> list[Continuation]:
        step, place = request.steps[-1], len(request.steps) - 1
        texts = {
            fault: critique_text(
                critique_of(step, "reasoning", Step("answer", "[answer] ?")) if fault == place else critique_of(step),
                FIRST,
            )
            for fault in self.faults
        }
        written = [Continuation("?" if fault is None else texts[fault], 3, True) for fault in self.faults]
        self.faults = [fault for fault in self.faults if fault is not None and fault > place]
        return written

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> tuple[int, int]:
        raise AssertionError


def test_a_step_is_worth_the_share_of_critiques_that_call_it_right() -> None:
    problem = PROBLEMS[0]
    steps = STEPS[problem.id]

    def of(*faults: int | None) -> Scored:
        scorer = CritiqueScorer(Critics(faults), FIRST, len(faults))
        return asyncio.run(scorer.score(problem, [steps]))

    found = of(len(steps), 1, 1, None)
    assert [s and s.correct for s in found.steps[0]] == pytest.approx([1.0] + [1 / 3] * (len(steps) - 1))
    assert found.tokens == 3 * (4 + 3 + len(steps) - 2)
    assert of(None).steps == [[None] * len(steps)]


def test_one_step_ends_where_the_next_begins() -> None:
    """The built-in policy writes step by step, concurrently with whole turns; zooms are executed on the way."""
    engine = LocalPolicy(load_policy("builtin/policy"))

    async def walk(problem: Problem) -> Solution:
        so_far = Solution(problem.id, (), None, OPEN, 0)
        while so_far.stop == OPEN:
            request = Request(problem, (), 1, f"{problem.id}/{len(so_far.steps)}", 0, 0.0, 80)
            (so_far,) = await next_steps(engine, request, so_far)
        return so_far

    async def all_of_them() -> tuple[list[Solution], list[list[Continuation]]]:
        whole = asyncio.gather(*(engine.sample(Request(p, (), 1, p.id, 0, 0.0, 160)) for p in PROBLEMS))
        return list(await asyncio.gather(*map(walk, PROBLEMS))), list(await whole)

    walked, whole = asyncio.run(all_of_them())
    for solution, (turn,) in zip(walked, whole, strict=True):
        assert solution.stop == "answer"
        zoom = next((k for k, s in enumerate(solution.steps) if s.kind == "zoom"), len(solution.steps))
        assert "\n\n".join(s.text for s in solution.steps[: zoom + 1]) == turn.text
    assert any(step.region for solution in walked for step in solution.steps)


@pytest.mark.parametrize("method", ["best_of_n", "step_beam", "rebase"])
def test_methods_run_on_real_models(checkpoint: Checkpoint, method: str) -> None:
    """The solutions of each method have the scores that they have alone."""
    policy, scorer = LocalPolicy(load_policy("builtin/policy")), LocalScorer(checkpoint)
    config = SearchConfig(n=4, width=2, max_tokens=80)

    async def all_of_them() -> list:  # type: ignore[type-arg]
        return list(await asyncio.gather(*(solve(method, p, policy, scorer, config) for p in PROBLEMS[-2:])))

    for problem, found in zip(PROBLEMS[-2:], asyncio.run(all_of_them()), strict=True):
        assert 1 <= len(found.pool) <= 4
        for scored in found.pool:
            rewards = [s.correct for s in scored.scores if s is not None]
            assert rewards == pytest.approx(score(checkpoint, [(problem, scored.solution.steps)])[0], abs=1e-4)
