"""The models that methods need: named before anything is loaded, and opened for one event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vlprm.errors import UserError
from vlprm.model.loading import placement
from vlprm.model.reward_loading import load_reward_model
from vlprm.policy import Policy
from vlprm.policy.local import LocalPolicy
from vlprm.policy.open import open_policy
from vlprm.prompts import critique_question
from vlprm.scoring import Scorer
from vlprm.scoring.config import ScorerConfig
from vlprm.scoring.open import open_scorer
from vlprm.search import Critic, SearchConfig, method_named
from vlprm.serving.config import ServerConfig


class Named(Protocol):
    """The fields of a config that name the models and where they run."""

    policy: str
    reward_model: str | Path | Sequence[str | Path] | None
    scorer: ScorerConfig
    critic: str | Path | None
    search: SearchConfig
    server: ServerConfig
    scores: ServerConfig
    device: str
    dtype: str


@dataclass(frozen=True)
class Models:
    policy: Policy
    scorer: Scorer | None
    critic: Critic | None


def refuse_missing_models(methods: Sequence[str], named: Named) -> None:
    """UserError where a model that a method needs is not given, or the scorer does not fit the search."""
    named.scorer.check(named.search.aggregation)
    for name in methods:
        method = method_named(name)
        if method.needs_scorer and named.reward_model is None:
            raise UserError(f"{name} needs reward_model, a checkpoint folder of train.prm; give one")
        if method.needs_critic and named.critic is None:
            raise UserError(f"{name} needs critic, a reward model that has learnt critiques; give one")


@asynccontextmanager
async def open_models(named: Named) -> AsyncIterator[Models]:
    placed = named.device, named.dtype
    async with AsyncExitStack() as opened:
        policy = await opened.enter_async_context(open_policy(named.policy, *placed, named.server))
        scorer = critic = None
        if named.reward_model is not None:
            scores = open_scorer(named.reward_model, *placed, named.scores, named.scorer)
            scorer = await opened.enter_async_context(scores)
        if named.critic is not None:
            engine = LocalPolicy(load_reward_model(named.critic, *placement(*placed)))
            critic = Critic(engine, critique_question(engine.checkpoint.config.prompt_template))
        yield Models(policy, scorer, critic)
