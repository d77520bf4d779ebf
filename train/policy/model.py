"""A policy that returns the log-probabilities of chosen tokens of packed rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from vlprm.errors import UserError
from vlprm.model.attention import Attention
from vlprm.model.class_loading import ClassLoader
from vlprm.model.loading import Checkpoint, checkpoint_config_of, checkpoint_folder, load_checkpoint, load_inputs
from vlprm.model.token_nats import token_nats
from vlprm.model.tree_attention import mask_for


@dataclass
class TokenOutput(ModelOutput):  # type: ignore[misc]
    """`log_p` (N): log-probabilities of the chosen tokens, by row and place."""

    log_p: Tensor | None = None


@lru_cache
def policy_class(backbone_class: Any) -> type[PreTrainedModel]:
    """The backbone's class, under its own name, whose `forward` takes `chosen` (B, T) tokens of a batch of packed rows
    and returns their log-probabilities, at a temperature and without banned ids. Without `chosen` it is the
    backbone's."""

    class PackedPolicy(backbone_class):  # type: ignore[misc]
        # The Trainer then counts a global batch's tokens and leaves normalisation to the loss.
        accepts_loss_kwargs = True
        # The step head of a critic, which is left out.
        _keys_to_ignore_on_load_unexpected = (*(backbone_class._keys_to_ignore_on_load_unexpected or ()), r"^score\.")

        def forward(
            self,
            chosen: Tensor | None = None,
            before: Tensor | None = None,
            until: Tensor | None = None,
            temperature: float = 1.0,
            banned: Sequence[int] = (),
            **inputs: Any,
        ) -> Any:
            if chosen is None:  # generation, as in the backbone
                return super().forward(**inputs)
            assert before is not None
            if until is not None:
                inputs["attention_mask"] = mask_for(self, until)
            hidden_BTD = self.model(**inputs, use_cache=False).last_hidden_state
            nats_N = token_nats(self.lm_head, hidden_BTD, inputs["input_ids"], chosen, before, temperature, banned)
            return TokenOutput(log_p=-nats_N)

    PackedPolicy.__name__ = PackedPolicy.__qualname__ = backbone_class.__name__
    return PackedPolicy


def load_packed_policy(name: str, device: str = "cpu", as_critic: bool = False) -> Checkpoint:
    """Load a policy as `policy_class`, in evaluation mode. A reward model is loaded only `as_critic`, without its head;
    else it is a UserError."""
    folder = checkpoint_folder(name)
    declared = checkpoint_config_of(folder)
    if declared.head != "none" and not as_critic:
        raise UserError(f"{folder} is a reward model with a {declared.head} head; give a policy, such as its backbone")
    inputs = load_inputs(folder, None if declared.head == "none" else replace(declared, head="none"))
    loader = ClassLoader(policy_class, inputs.family, Attention(), bits=16)
    return load_checkpoint(folder, loader, device, torch.float32, inputs)
