"""Open the scorer that a config asks for: in this process, served, an ensemble, from critiques, a judge or a model
without training."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from vlprm.errors import UserError
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.loading import checkpoint_config_of, checkpoint_folder, placement
from vlprm.model.reward_loading import load_reward_model
from vlprm.policy import Policy
from vlprm.policy.local import LocalPolicy
from vlprm.policy.open import checked, open_judge, open_policy, require_server_package
from vlprm.prompts import CritiqueTemplate
from vlprm.published.load import load, verifier
from vlprm.scoring import Scorer
from vlprm.scoring.claims import ClaimScorer
from vlprm.scoring.config import ScorerConfig
from vlprm.scoring.critiques import CritiqueScorer
from vlprm.scoring.derived import DerivedScorer, cautious, joint, likelihood, valued
from vlprm.scoring.ensemble import Ensemble
from vlprm.scoring.judged import FORMS, JudgeScorer
from vlprm.scoring.local import LocalScorer, WholeSolutionScorer
from vlprm.scoring.served import ServedScorer
from vlprm.serving.config import ModelConfig


def with_folders(models: Sequence[ModelConfig], scorer: ScorerConfig) -> list[ModelConfig]:
    """The models whose folders decide the rewards: all but served judges, which have none."""
    return [model for model in models if not (scorer.kind in FORMS and model.is_served)]


@asynccontextmanager
async def open_served_scorer(model: ModelConfig) -> AsyncIterator[ServedScorer]:
    """Open a reward model that servers serve from its folder, for one event loop. UserError if the head cannot be
    served or a server does not answer as it must."""
    if not model.is_served:
        raise UserError("a served scorer needs server.base_urls and server.model; give both")
    require_server_package()

    async with checked(ServedScorer(model.checkpoint, model.server)) as scores:
        yield scores


@asynccontextmanager
async def open_scorer(models: Sequence[ModelConfig], scorer: ScorerConfig = ScorerConfig()) -> AsyncIterator[Scorer]:
    """Open a reward model, in this process or on its servers; for several, an ensemble. UserError if servers are given
    for a scorer that they cannot provide, or a decision for one that makes none."""
    if scorer.decision == "probability" and scorer.kind != "critiques":
        raise UserError(
            f"scorer.kind {scorer.kind} takes no scorer.decision; leave it out, or set scorer.kind: critiques"
        )
    if scorer.kind in ("whole", "joint", "likelihood") and any(model.is_served for model in models):
        raise UserError("servers score steps only; leave out server.base_urls of the reward model for this scorer")
    if (scorer.value or scorer.risk) and scorer.kind not in ("steps", "whole"):
        raise UserError(
            f"scorer.kind {scorer.kind} gives no value and no standard deviation; leave out scorer.value and"
            " scorer.risk"
        )
    for model in models:
        if verifier(model.checkpoint) and scorer.kind != "steps":
            raise UserError(f"{model.checkpoint} lists wrong claims; leave out scorer.kind {scorer.kind}")
    async with AsyncExitStack() as opened:
        scorers = [await opened.enter_async_context(_opened(model, scorer)) for model in models]
        yield scorers[0] if len(scorers) == 1 else Ensemble(scorers)


@asynccontextmanager
async def open_critic(model: ModelConfig) -> AsyncIterator[Policy]:
    """Open a model that writes critiques: a reward model that learnt it, or a policy, which is asked as it is.
    UserError if it never learnt to."""
    refuse_untaught(model)
    declared = _declared(model)
    if model.is_served or declared.head == "none":
        async with open_policy(model) as engine:
            yield engine
    else:
        yield LocalPolicy(load_reward_model(model.checkpoint, *placement(model.device, model.dtype)))


def _declared(model: ModelConfig) -> CheckpointConfig:
    return checkpoint_config_of(checkpoint_folder(model.checkpoint, weights=False))


def refuse_untaught(model: ModelConfig) -> None:
    """UserError if the model never learnt to write critiques. A model that follows instructions is asked in words."""
    declared = _declared(model)
    follows = declared.head == "none" and declared.prompt_template != "plain@1"
    if not declared.provenance.get("critiques", follows):
        raise UserError(
            f"{model.checkpoint} never learnt to write critiques; give a reward model that train.prm trained with"
            ' loss.critique: 1 (configs/demo/critic.yaml); if it did learn them, declare "provenance":'
            ' {"critiques": true} in its vlprm.json'
        )


def critique_template_of(model: ModelConfig) -> CritiqueTemplate:
    """How the model's checkpoint is asked for critiques."""
    return _declared(model).critiques


@asynccontextmanager
async def _opened(model: ModelConfig, scorer: ScorerConfig) -> AsyncIterator[Scorer]:
    if scorer.kind in FORMS:
        async with open_judge(model) as engine:
            yield JudgeScorer(engine, scorer.kind, scorer.critiques)
    elif scorer.kind == "critiques":
        async with open_critic(model) as critic:
            yield CritiqueScorer(critic, critique_template_of(model), scorer.critiques, scorer.decision)
    elif verifier(model.checkpoint) and model.is_served:
        require_server_package()
        async with checked(ClaimScorer(model.checkpoint, model.server)) as claims:
            yield _weighed(claims, model, (), scorer)
    elif model.is_served:
        async with open_served_scorer(model) as scores:
            yield _weighed(scores, model, scores.extra_outputs, scorer)
    else:
        yield _local(model, scorer)


def _local(model: ModelConfig, scorer: ScorerConfig) -> Scorer:
    where = placement(model.device, model.dtype)
    if scorer.kind == "joint":
        asked = load_reward_model(model.checkpoint, *where, new_head="verdict")
        return DerivedScorer(LocalScorer(asked, scorer.memory_tokens), joint)
    if scorer.kind == "likelihood":
        read = load_reward_model(model.checkpoint, *where, new_head="step", reads_surprise=True)
        return DerivedScorer(LocalScorer(read, scorer.memory_tokens), likelihood)
    checkpoint = load(model.checkpoint, *where)
    local = LocalScorer(checkpoint, scorer.memory_tokens)
    found = WholeSolutionScorer(local) if scorer.kind == "whole" else local
    return _weighed(found, model, getattr(checkpoint.model, "extra_outputs", ()), scorer)


def _weighed(found: Scorer, model: ModelConfig, outputs: Sequence[str], scorer: ScorerConfig) -> Scorer:
    """The scorer with the value and the standard deviation in its rewards, if the config asks for them. UserError if
    the model does not give them."""
    if scorer.value:
        if "value" not in outputs:
            raise UserError(f"{model.checkpoint} gives no value; set scorer.value to 0, or train it with loss.value: 1")
        found = DerivedScorer(found, partial(valued, weight=scorer.value))
    if scorer.risk:
        if "concentration" not in outputs:
            raise UserError(
                f"{model.checkpoint} gives no standard deviation; set scorer.risk to 0, or train it with"
                " loss.concentration: learned"
            )
        if "value" in outputs and not scorer.value:
            raise UserError("the standard deviation is that of the value, which has no weight; set scorer.value to 1")
        found = DerivedScorer(found, partial(cautious, risk=scorer.risk))
    return found
