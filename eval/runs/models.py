"""Check and open the models that search methods need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from vlprm.errors import UserError
from vlprm.policy import Policy
from vlprm.policy.open import open_policy
from vlprm.schema import Aggregation
from vlprm.scoring import Scorer
from vlprm.scoring.config import ScorerConfig
from vlprm.scoring.open import critique_template_of, open_critic, open_scorer
from vlprm.search import Critic, method_named
from vlprm.serving.config import ModelConfig


@dataclass(frozen=True)
class Models:
    """The open models of a run; None for a model that the config does not name."""

    policy: Policy
    scorer: Scorer | None
    critic: Critic | None


def refuse_missing_models(
    methods: Sequence[str], reward_model: object, critic: object, scorer: ScorerConfig, aggregation: Aggregation
) -> None:
    """UserError if a method lacks a model that it needs, or the scorer does not fit the aggregation. Call it before
    models are loaded."""
    scorer.check(aggregation)
    for name in methods:
        method = method_named(name)
        if method.needs_scorer and not reward_model:
            raise UserError(f"{name} needs a reward model; set reward_model to a checkpoint folder of train.prm")
        if method.needs_critic and not critic:
            raise UserError(f"{name} needs a critic; set critic to a reward model trained to write critiques")


@asynccontextmanager
async def open_models(
    policy: ModelConfig, reward_models: Sequence[ModelConfig], scorer: ScorerConfig, critic: ModelConfig | None
) -> AsyncIterator[Models]:
    """Open the policy, the scorer (an ensemble for several reward models, None for none) and the critic."""
    async with AsyncExitStack() as opened:
        writer = await opened.enter_async_context(open_policy(policy))
        scores = await opened.enter_async_context(open_scorer(reward_models, scorer)) if reward_models else None
        asked = None
        if critic is not None:
            engine = await opened.enter_async_context(open_critic(critic))
            asked = Critic(engine, critique_template_of(critic))
        yield Models(writer, scores, asked)
