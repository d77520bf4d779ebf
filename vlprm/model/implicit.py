"""The implicit head: rewards as log-ratios of a language model to a frozen reference, learnt from outcomes of whole
solutions (Yuan et al., arXiv 2412.01981).

A solution y is right with the log-odds r(y) = beta * sum_t log pi(y_t | y_<t) / pi_ref(y_t | y_<t), which training
raises for right solutions and lowers for wrong ones. The sum up to the end of a step is beta * log E exp(r(y) / beta)
over the solutions that the reference would write from there (their Proposition 3.1), a soft mean of their log-odds. So
the reward of a step is the logistic of the sum up to its end: a probability that the solution ends right, one half
before any training. The paper's code scores with these sums; the differences from step to step, which it calls process
rewards, are `StepScore.log_odds`. Only ids that the policy wrote count.

Shapes: B rows, S steps, T tokens, N written tokens, D width.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from vlprm.model.checkpoint_config import BETA
from vlprm.model.lora import has_adapters, without_adapters
from vlprm.model.reward_model import StepOutput, read_rows, steps_of_written
from vlprm.model.token_nats import token_nats


@lru_cache
def implicit_class(backbone_class: Any) -> type[PreTrainedModel]:
    """The backbone's class, under its own name, with a frozen `reference`, which is not saved with it. `forward` takes
    a batch of `InputBuilder.step_batch` and returns the log-odds that each step adds. A model with adapters needs no
    other reference than itself without them."""

    class ImplicitRewardModel(backbone_class):  # type: ignore[misc]
        accepts_loss_kwargs = True
        passes = 2  # models that read a batch, each with a KV cache of its own

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.beta = BETA
            self.reference: nn.Module | None = None

        def refer_to(self, reference: Any) -> None:
            """Set the reference, which stays as it is."""
            self.reference = reference.requires_grad_(False).eval()
            self._keys_to_ignore_on_save |= {f"reference.{name}" for name in reference.state_dict()}

        def train(self, mode: bool = True) -> Any:
            """The reference stays in evaluation mode."""
            super().train(mode)
            if self.reference is not None:
                self.reference.eval()
            return self

        def forward(self, step_ends: Tensor | None = None, **inputs: Any) -> Any:
            if step_ends is None:  # generation, as in the backbone
                return super().forward(**inputs)
            assert self.reference is not None or has_adapters(self), "an implicit head has a reference"
            own, others = _of_both(inputs)
            with torch.no_grad(), without_adapters(self) if self.reference is None else nullcontext():
                reference_BTD, reference_N = _likelihood(self if self.reference is None else self.reference, others)
            states_BTD, nats_N = _likelihood(self, own)
            states = torch.cat([states_BTD, reference_BTD], dim=-1) if "past_key_values" in inputs else None
            added_BS = _of_steps(reference_N - nats_N, inputs["written_in"], step_ends.shape[1])
            return StepOutput(log_odds=self.beta * added_BS, states=states)

    ImplicitRewardModel.__name__ = ImplicitRewardModel.__qualname__ = backbone_class.__name__
    return ImplicitRewardModel


def _of_both(batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The batch for the model and for its reference, whose KV cache and kept states stand behind the model's."""
    own, others = dict(batch), dict(batch)
    if "past_key_values" in batch:
        layers = batch["past_key_values"].layers
        half = len(layers) // 2
        own["past_key_values"], others["past_key_values"] = Cache(layers=layers[:half]), Cache(layers=layers[half:])
    if "kept" in batch:
        own["kept"], others["kept"] = batch["kept"].chunk(2, dim=-1)
    return own, others


def _likelihood(model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """(B, R + T, D) last hidden states, and (N) negative log-likelihoods of the ids that the policy wrote."""
    hidden_BTD, places, _ = read_rows(model, batch)
    written_BT = places["written_in"] >= 0
    return hidden_BTD, token_nats(model.lm_head, hidden_BTD, batch["input_ids"], written_BT, places["before"])


def _of_steps(nats_N: Tensor, written_BT: Tensor, steps: int) -> Tensor:
    """(B, S) sums over the ids of each step."""
    flat = torch.zeros(len(written_BT) * steps, device=nats_N.device)
    return flat.index_add(0, steps_of_written(written_BT, steps), nats_N).view(len(written_BT), steps)
