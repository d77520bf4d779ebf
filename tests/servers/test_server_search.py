"""Search with a real vLLM: step by step, with zooms, and with scores from a second server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.vllm_server import LIMIT, vllm
from vlprm.model.checkpoint_config import Head
from vlprm.model.loading import checkpoint_folder
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.policy.open import open_policy
from vlprm.scoring.open import open_scorer
from vlprm.search import SearchConfig, SearchResult, solve
from vlprm.serving.config import ModelConfig, ServerConfig
from vlprm.tasks import TASKS

pytestmark = [pytest.mark.server, pytest.mark.timeout(LIMIT)]

POLICY = "builtin/policy"
FINE_PRINT = [TASKS["fine_print"].problem("test", i) for i in range(6)]
PROBLEMS = [*FINE_PRINT, TASKS["chart"].problem("test", 0), TASKS["count_grid"].problem("test", 0)]
HERE = ServerConfig()


@dataclass(frozen=True)
class Served:
    policy: ServerConfig
    scores: ServerConfig
    reward_model: Path


@pytest.fixture(scope="module", params=["step", "verdict"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    head: Head = request.param
    folder, logs = tmp_path_factory.mktemp(head), tmp_path_factory.mktemp("logs")
    checkpoint = load_reward_model("builtin/backbone", new_head=head)
    if head == "step":
        torch.nn.init.normal_(checkpoint.model.score.weight, std=0.05, generator=torch.Generator().manual_seed(1))
    save_reward_model(checkpoint, folder, checkpoint.config)
    flags = ("--runner", "pooling") if head == "step" else ()
    (logs / "scores").mkdir()
    with (
        vllm(checkpoint_folder(POLICY), logs, "policy", "--no-enable-chunked-prefill") as policy,
        vllm(folder, logs / "scores", "prm", *flags) as scores,
    ):
        yield Served(policy, scores, folder)


def found(
    method: str, config: SearchConfig, served: Served, policy: ServerConfig, scores: ServerConfig
) -> list[SearchResult]:
    async def search() -> list[SearchResult]:
        async with (
            open_policy(ModelConfig(POLICY, policy, "cpu")) as engine,
            open_scorer([ModelConfig(str(served.reward_model), scores, "cpu")]) as scorer,
        ):
            return list(await asyncio.gather(*(solve(method, p, engine, scorer, config) for p in PROBLEMS)))

    return asyncio.run(search())


def test_a_greedy_search_is_the_one_of_this_process(served: Served) -> None:
    """One prefix is continued by its most likely next step; zooms are executed on the way."""
    config = SearchConfig(n=1, width=1, temperature=0.0, max_tokens=160)
    there, here = (
        found("step_beam", config, served, served.policy, served.scores),
        found("step_beam", config, served, HERE, HERE),
    )
    for a, b in zip(there, here, strict=True):
        assert a.chosen is not None
        assert b.chosen is not None
        assert a.chosen.solution.steps == b.chosen.solution.steps
        assert a.chosen.solution.stop == "answer"
        rewards = [[s.correct for s in x.chosen.scores if s] for x in (a, b) if x.chosen]
        assert len(rewards[0]) == len(a.chosen.solution.steps)
        assert rewards[0] == pytest.approx(rewards[1], abs=1e-4)
    zooms = [step for f in there[: len(FINE_PRINT)] if f.chosen for step in f.chosen.solution.steps if step.region]
    assert len(zooms) >= len(FINE_PRINT)


def test_a_sampled_search_fills_its_pool(served: Served) -> None:
    config = SearchConfig(n=4, width=2, seed=3, max_tokens=160)
    for method in ("best_of_n", "dvts", "rebase"):
        for f in found(method, config, served, served.policy, served.scores):
            assert 1 <= len(f.pool) <= 4
            assert all(s.solution.answer is None or None not in s.scores for s in f.pool)
            assert min(f.cost.policy_sampled, f.cost.policy_read, f.cost.scorer_read) > 0
