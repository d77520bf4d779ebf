"""Load a reward model by its name: one of `train.prm`, or a published one in its own protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor

from vlprm.errors import UserError
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint, checkpoint_folder, load_inputs, protocol_of, stored_config
from vlprm.model.reward_loading import load_reward_model, load_verdict_model
from vlprm.published import PROTOCOLS, VERIFIERS
from vlprm.published.inputs import PublishedInputs
from vlprm.published.protocol import Protocol, Verifier
from vlprm.published.text import published_text
from vlprm.zoom.boxes import NO_DIALECT


def load(name: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Checkpoint:
    """Load the reward model of a name: PROTOCOL@CHECKPOINT, a released checkpoint, or a folder of train.prm. UserError
    for an unknown protocol, another model than the protocol's, or a prompt that is missing or differs."""
    if published(name) is None:
        return load_reward_model(name, device, dtype)
    folder = checkpoint_folder(name)
    return load_verdict_model(folder, reward_inputs(name), device, dtype)


def reward_inputs(name: str | Path, weights: bool = True) -> InputBuilder:
    """The builder of a reward model's inputs; without `weights`, those of the Hub are not downloaded."""
    folder, protocol = checkpoint_folder(name, weights), published(name)
    if protocol is None:
        return load_inputs(folder)
    config = _config(folder, protocol)
    prompt = published_text(folder, protocol.prompt)
    return PublishedInputs(AutoProcessor.from_pretrained(folder), _declared(protocol), config, protocol, prompt)


def published(name: str | Path) -> Protocol | None:
    """The protocol of a name; None for a reward model of train.prm. UserError for an unknown protocol."""
    wanted, checkpoint = protocol_of(name)
    if verifier(name) is not None:
        raise UserError(f"{name} writes its verdict; serve it with vLLM, and give server.base_urls and server.model")
    if wanted and wanted not in PROTOCOLS:
        raise UserError(f"unknown protocol {wanted!r} in {name}; known: {', '.join([*PROTOCOLS, *VERIFIERS])}")
    return PROTOCOLS.get(wanted) or next((p for p in PROTOCOLS.values() if checkpoint in p.hub), None)


def verifier(name: str | Path) -> Verifier | None:
    """The verifier of a name, which writes its verdict; None for any other reward model."""
    wanted, checkpoint = protocol_of(name)
    return VERIFIERS.get(wanted) or next((v for v in VERIFIERS.values() if checkpoint in v.hub and not wanted), None)


def _config(folder: Path, protocol: Protocol) -> Any:
    written = stored_config(folder)
    if protocol.code_of_its_own and ("auto_map" in written or written.get("model_type") == "ursa"):
        raise UserError(f"{folder}: {protocol.code_of_its_own}")
    if written.get("model_type") != protocol.model_type:
        raise UserError(
            f"{folder} holds a {written.get('model_type')} model, and this protocol's is a {protocol.model_type}; give"
            f" {' or '.join(protocol.hub)}, or another protocol"
        )
    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def _declared(protocol: Protocol) -> CheckpointConfig:
    """What `vlprm.json` would declare."""
    least, most = protocol.pixels or (None, None)
    return CheckpointConfig(
        head="verdict",
        verdicts=protocol.verdicts or ("", ""),
        dialect=NO_DIALECT,
        min_pixels=least,
        max_pixels=most,
        aggregation=protocol.aggregation,
        family=protocol.family,
    )
