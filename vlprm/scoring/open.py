"""Open the scorer that a config asks for: in this process, served, an ensemble, or from critiques."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from vlprm.errors import UserError
from vlprm.model.loading import checkpoint_config_of, checkpoint_folder, placement
from vlprm.model.reward_loading import load_reward_model
from vlprm.policy.local import LocalPolicy
from vlprm.policy.open import checked, open_policy, require_server_package
from vlprm.scoring import Scorer
from vlprm.scoring.config import ScorerConfig
from vlprm.scoring.critiques import CritiqueScorer
from vlprm.scoring.ensemble import Ensemble
from vlprm.scoring.local import LocalScorer, WholeSolutionScorer
from vlprm.scoring.served import ServedScorer
from vlprm.serving.config import ServerConfig


@asynccontextmanager
async def open_served_scorer(reward_model: str | Path, server: ServerConfig) -> AsyncIterator[ServedScorer]:
    """Open a reward model that servers serve from its folder, for one event loop. UserError if the head cannot be
    served or a server does not answer as it must."""
    if not server.base_urls:
        raise UserError("a served scorer needs server.base_urls and server.model; give both")
    require_server_package()

    async with checked(ServedScorer(reward_model, server)) as scores:
        yield scores


@asynccontextmanager
async def open_scorer(
    reward_model: str | Path | Sequence[str | Path],
    device: str,
    dtype: str,
    server: ServerConfig,
    scorer: ScorerConfig = ScorerConfig(),
) -> AsyncIterator[Scorer]:
    """Open the reward model of a folder, in this process or on servers; for several folders, an ensemble. UserError if
    servers are given for a scorer that they cannot provide."""
    folders = [reward_model] if isinstance(reward_model, str | Path) else reward_model
    if server.base_urls and (len(folders) > 1 or scorer.kind == "whole"):
        raise UserError("servers score the steps of one reward model only; leave out server.base_urls for this scorer")
    async with AsyncExitStack() as opened:
        scorers = [
            await opened.enter_async_context(_opened(folder, device, dtype, server, scorer)) for folder in folders
        ]
        yield scorers[0] if len(scorers) == 1 else Ensemble(scorers)


@asynccontextmanager
async def _opened(
    folder: str | Path, device: str, dtype: str, server: ServerConfig, scorer: ScorerConfig
) -> AsyncIterator[Scorer]:
    if scorer.kind == "critiques":
        template = checkpoint_config_of(checkpoint_folder(folder)).prompt_template
        if server.base_urls:
            async with open_policy(str(folder), device, dtype, server) as engine:
                yield CritiqueScorer(engine, template, scorer.critiques)
            return
        critic = LocalPolicy(load_reward_model(folder, *placement(device, dtype)))
        yield CritiqueScorer(critic, template, scorer.critiques)
    elif server.base_urls:
        async with open_served_scorer(folder, server) as scores:
            yield scores
    else:
        local = LocalScorer(load_reward_model(folder, *placement(device, dtype)))
        yield WholeSolutionScorer(local) if scorer.kind == "whole" else local
