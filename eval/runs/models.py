"""The models that methods need: named before anything is loaded, and opened for one event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from vlprm.errors import UserError
from vlprm.policy import Policy
from vlprm.policy.open import open_policy
from vlprm.prompts import critique_question
from vlprm.scoring import Scorer
from vlprm.scoring.config import ScorerConfig
from vlprm.scoring.open import open_critic, open_scorer, prompt_template
from vlprm.search import Critic, method_named
from vlprm.serving.config import ModelConfig


@dataclass(frozen=True)
class Models:
    policy: Policy
    scorer: Scorer | None
    critic: Critic | None


def refuse_missing_models(methods: Sequence[str], reward_model: object, critic: object) -> None:
    """UserError where a model that a method needs is not given."""
    for name in methods:
        method = method_named(name)
        if method.needs_scorer and not reward_model:
            raise UserError(f"{name} needs reward_model, a checkpoint folder of train.prm; give one")
        if method.needs_critic and not critic:
            raise UserError(f"{name} needs critic, a reward model that has learnt critiques; give one")


@asynccontextmanager
async def open_models(
    policy: ModelConfig, reward_models: Sequence[ModelConfig], scorer: ScorerConfig, critic: ModelConfig | None
) -> AsyncIterator[Models]:
    """Open the policy, the scorer (of several reward models, their ensemble; of none, None) and the critic."""
    async with AsyncExitStack() as opened:
        writer = await opened.enter_async_context(open_policy(policy))
        scores = await opened.enter_async_context(open_scorer(reward_models, scorer)) if reward_models else None
        asked = None
        if critic is not None:
            engine = await opened.enter_async_context(open_critic(critic))
            asked = Critic(engine, critique_question(prompt_template(critic)))
        yield Models(writer, scores, asked)
