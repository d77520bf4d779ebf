"""A real vLLM on the CPU serves the built-in policy, and writes what the policy in this process writes."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Iterator, Sequence

import pytest

from data_synth.judges.config import SamplingConfig
from data_synth.judges.model import Judged, judge_tree
from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from tests.conftest import executed, solved
from tests.teacher import TeacherEngine
from tests.vllm_server import LIMIT, vllm
from vlprm.answers import is_correct
from vlprm.model.loading import checkpoint_folder
from vlprm.policy import Continuation, Policy, Request
from vlprm.policy.open import open_chat, open_policy
from vlprm.policy.rollout import rollouts
from vlprm.policy.served import ServedPolicy
from vlprm.schema import Problem, Solution, Step
from vlprm.serving.config import ModelConfig, ServerConfig
from vlprm.tasks import TASKS

pytestmark = [pytest.mark.server, pytest.mark.timeout(LIMIT)]

POLICY = "builtin/policy"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerConfig]:
    """vLLM as configs/server/trees.yaml starts it, on a free port."""
    folder = tmp_path_factory.mktemp("vllm")
    # With chunked prefill, a seeded request ends vLLM 0.32.0 on a CPU.
    with vllm(checkpoint_folder(POLICY), folder, "policy", "--no-enable-chunked-prefill") as config:
        yield config


def sampled(server: ServerConfig, requests: Sequence[Request]) -> list[list[Continuation]]:
    async def ask(engine: Policy) -> list[list[Continuation]]:
        return await asyncio.gather(*(engine.sample(r) for r in requests))

    return run_on(server, ask)


def solved_by(server: ServerConfig, requests: Sequence[Request]) -> list[list[Solution]]:
    async def solve(engine: Policy) -> list[list[Solution]]:
        return await asyncio.gather(*(rollouts(engine, r) for r in requests))

    return run_on(server, solve)


def run_on(server, work):  # type: ignore[no-untyped-def]
    async def opened():  # type: ignore[no-untyped-def]
        async with open_policy(ModelConfig(POLICY, server)) as engine:
            return await work(engine)

    return asyncio.run(opened())


def greedy(problem: Problem, steps: Sequence[Step] = ()) -> Request:
    return Request(problem, tuple(steps), 1, problem.id, seed=0, temperature=0.0, max_tokens=160)


def test_greedy_continuations_are_those_of_the_engine_in_process(server: ServerConfig) -> None:
    """They continue the prompt, written steps, a crop just shown, and steps after a crop."""
    requests = [greedy(family.problem("test", i)) for i in range(4) for family in TASKS.values()]
    for i in range(4):
        for family in TASKS.values():
            problem = family.problem("test", i)
            steps = [executed(step) for step in solved(problem)]
            requests += [greedy(problem, steps[:cut]) for cut in range(1, len(steps))]
    crops = [r for r in requests if r.steps and r.steps[-1].region]
    after = [r for r in requests if any(s.region for s in r.steps[:-1])]
    assert len(crops) >= 2
    assert len(after) >= 2
    served, local = sampled(server, requests), sampled(ServerConfig(), requests)
    local = [[dataclasses.replace(c, ids=()) for c in own] for own in local]  # servers do not report them
    differ = [(r, s[0], own[0]) for r, s, own in zip(requests, served, local, strict=True) if s != own]
    # Another order of additions may turn a tie; a wrongly rendered prompt differs nearly everywhere.
    assert len(differ) <= 0.02 * len(requests), differ[0]
    assert not [r for r, *_ in differ if r in crops + after]


def test_a_long_turn_is_cut_off(server: ServerConfig) -> None:
    cut = Request(TASKS["count_grid"].problem("test", 0), (), 3, "cut", seed=0, max_tokens=2)
    (got,) = sampled(server, [cut])
    assert [c.ended for c in got] == [False] * 3
    assert not any(c.failure for c in got)


def test_sampling_is_repeatable_and_as_good_as_in_process(server: ServerConfig) -> None:
    """Mean accuracies over the same problems, with zooms executed, agree within three standard errors of the paired
    difference."""
    problems = [family.problem("test", i) for i in range(16) for family in TASKS.values()]
    requests = [Request(p, (), 8, p.id, seed=3, max_tokens=160) for p in problems]
    served, local = solved_by(server, requests), solved_by(ServerConfig(), requests)
    assert len({s.steps for s in served[0]}) > 1, "all samples of a request are the same"
    differences = [_accuracy(p, a) - _accuracy(p, b) for p, a, b in zip(problems, served, local, strict=True)]
    mean = sum(differences) / len(differences)
    error = math.sqrt(sum((d - mean) ** 2 for d in differences)) / len(differences)
    assert abs(mean) < 3 * error, (mean, error)
    assert any(s.region for pool in served for solution in pool for s in solution.steps)
    stops = [s.stop for pool in served for s in pool]
    assert stops.count("answer") > 0.8 * len(stops)
    again = sampled(server, requests[:1])
    assert again == sampled(server, requests[:1])


def _accuracy(problem: Problem, pool: Sequence[Solution]) -> float:
    assert problem.answer is not None
    return sum(is_correct(s.answer, problem.answer, problem.answer_type) is True for s in pool) / len(pool)


def test_a_judge_is_held_to_the_form_of_its_answer(server: ServerConfig) -> None:
    """The policy is a poor judge, but every complete answer is a judgement: JSON with exactly these fields. The schema
    cannot require that verdict and kind agree, nor that the steps are in order."""
    sampling = SamplingConfig(solutions=2, tries=1, max_tokens=1500)

    async def judgements() -> list[Judged]:
        async with open_chat(server) as engine:
            return [await judged(engine, TASKS["chart"].problem("test", at)) for at in range(3)]

    async def judged(engine: Policy, problem: Problem) -> Judged:
        tree = await search(problem, TeacherEngine(0.3), TreeSearchConfig(searches=0), seed=1)
        return await judge_tree(problem, tree, engine, sampling, seed=0)

    made = asyncio.run(judgements())
    assert [one.requests for one in made] == [2, 2, 2]
    causes = {cause for one in made for cause in one.failures}
    assert causes <= {"contradiction", "step_count", "length"}
    assert all(one.tokens > 0 for one in made)


def test_an_image_is_sent_once_and_then_named(server: ServerConfig) -> None:
    """The server has it by its name, and writes the same; an image that it has never seen is refused by name, and sent
    again whole."""
    # No other test shows the server these images.
    problem, other = (TASKS["chart"].problem("test", i) for i in (907, 908))

    async def ask(engine: ServedPolicy) -> tuple[list[str], list[tuple[int, int]]]:
        images = engine.servers.each[0].images
        assert images.on
        texts, counts = [], []
        for asked in (problem, problem, other):
            if asked is other:
                images.answered([engine.servers.image(other.images[0], None, engine.zoom)])  # believed to be there
            (answer,) = await engine.sample(greedy(asked))
            texts.append(answer.text)
            counts.append((images.hits, images.misses))
        return texts, counts

    texts, counts = run_on(server, ask)
    before = counts[0][0]
    assert counts == [(before, 0), (before + 1, 0), (before + 1, 1)]
    assert texts[0] == texts[1]
    assert texts[2] == sampled(server, [greedy(other)])[0][0].text
