"""The step-reward model: an image-text-to-text backbone that scores all steps of a sequence in one forward pass.

The *step head* is one linear layer named `score`; it reads the state at a step's last token. The *verdict head* is the
LM head: after each step the model is asked whether the step is correct, and the logits of the two answer tokens are
compared. With `surprise`, the step head also reads how unlikely the step was under the backbone's LM head. A state
cannot contain that itself, since the prediction of a token is only compared with the token afterwards. (Likelihood as a
process reward without a trained head: Yuan et al., arXiv 2412.01981.) With `lookback`, it also reads which share of
attention each text layer gives to images while a step is written (Lookback Lens, 2407.07071; heads over attention and
probabilities: UHeads, 2511.06209).

The class of a model with a step head is its backbone's class plus `score`, named `<Family>ForTokenClassification`:
servers recognise this name, and transformers' loss lookup does not take it for a language model. The step
head has the outputs correct, perception error and reasoning error, the verdict head correct and wrong. A step head may
have extra outputs that are not classes: *value* is the probability that a rollout from here ends right (OVM, arXiv
2311.09724; AlphaMath, 2405.03553; beside `correct` in BiRM, 2503.04618), and *concentration* says how sure the model is
of the share of right rollouts, in rollouts (BetaPRM, 2605.15529).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput

from vlprm.errors import UserError
from vlprm.model.token_nats import token_nats
from vlprm.model.tree_attention import looking_back, mask_for
from vlprm.schema import StepScore

OUTPUTS = ("correct", "perception", "reasoning")
CONCENTRATION, LEAST_CONCENTRATION = 4.0, 1e-3  # that of a head without training, and the least of any; BetaPRM
CORRECT = 0
SURPRISES = 2  # features: the least likely token, the whole step


@dataclass
class StepOutput(TokenClassifierOutput):  # type: ignore[misc]
    """`logits` (B, S, O) of the classes, correct first. `value` and `concentration` (B, S): their logits, if the head
    has them. `surprise` (B, S, 2) in nats, if the head reads it. `taught_nats` (N): negative log-likelihoods of the ids
    that the LM head learns, if any. `states` (B, R + T, D) with a KV cache: the R states given, then the new ones. An
    implicit head has no logits, but the `log_odds` (B, S) that each step adds to those of the steps before it."""

    log_odds: Tensor | None = None
    value: Tensor | None = None
    concentration: Tensor | None = None
    surprise: Tensor | None = None
    taught_nats: Tensor | None = None
    states: Tensor | None = None


def step_scores(output: StepOutput, head: str) -> list[list[StepScore]]:
    """Per row, a score for each of its S places, padding included. UserError if a score is not finite, because a NaN
    would rank like a number."""
    if output.log_odds is not None:
        _refuse_infinite(output.log_odds)
        added = zip(output.log_odds.tolist(), output.log_odds.double().sigmoid().tolist(), strict=True)
        return [[StepScore(p, None, None, log_odds=x) for x, p in zip(*of_row, strict=True)] for of_row in added]
    scores_BSO = output.logits.float().softmax(-1)
    value_BS = None if output.value is None else output.value.float().sigmoid()
    sd_BS = None
    if output.concentration is not None:
        mean_BS = scores_BSO[..., CORRECT] if value_BS is None else value_BS
        sd_BS = (mean_BS * (1 - mean_BS) / (1 + concentration(output.concentration))).sqrt()
    _refuse_infinite(*(numbers for numbers in (scores_BSO, value_BS, sd_BS) if numbers is not None))
    if head == "verdict":
        return [[StepScore(right, None, None) for right, _ in scores] for scores in scores_BSO.tolist()]
    columns = [*scores_BSO.unbind(-1), None if output.surprise is None else output.surprise[..., 0], value_BS, sd_BS]
    rows, steps = scores_BSO.shape[:2]
    listed = [[[None] * steps] * rows if column is None else column.tolist() for column in columns]
    return [
        [StepScore(p, q, r, nats, value=value, sd=sd) for p, q, r, nats, value, sd in zip(*of_row, strict=True)]
        for of_row in zip(*listed, strict=True)
    ]


def passes_of(model: Any) -> int:
    """The number of models that read a batch of a reward model, each with a KV cache of its own."""
    return int(getattr(model, "passes", 1))


def _refuse_infinite(*scores: Tensor) -> None:
    if not all(numbers.isfinite().all() for numbers in scores):
        raise UserError("the reward model's scores are not finite numbers; train it or copy it again")


def concentration(logit: Tensor) -> Tensor:
    """The concentration of a Beta distribution, in rollouts, from its logit; float32."""
    start = math.log(math.expm1(CONCENTRATION - LEAST_CONCENTRATION))
    return F.softplus(logit.float() + start) + LEAST_CONCENTRATION


def extra_logits(logits_BSO: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """(B, S) logits of a step head's outputs beside the classes, which come first. They are counted from the mean of
    the classes, since this difference is left in a softmax over all outputs, the answer of a server. Their gradients
    do not reach the classes."""
    mean_BS = logits_BSO[..., : len(OUTPUTS)].detach().mean(-1)
    return {name: logits_BSO[..., len(OUTPUTS) + k] - mean_BS for k, name in enumerate(names)}


@lru_cache
def reward_class(backbone_class: Any) -> type[PreTrainedModel]:
    """The backbone's class with a step head. `forward` takes a batch of `InputBuilder.step_batch` and returns a
    `StepOutput` at the step ends, without logits over the vocabulary."""

    class StepRewardModel(backbone_class):  # type: ignore[misc]
        # The Trainer then counts the labelled steps of a global batch and leaves normalisation to the loss.
        accepts_loss_kwargs = True

        def __init__(self, config: Any) -> None:
            # Servers read the number of outputs from this; the default is two.
            config.id2label = dict(enumerate((*OUTPUTS, *getattr(config, "extra_outputs", ()))))
            config.label2id = {name: i for i, name in config.id2label.items()}
            # transformers' own class of this name, if any, would add a bias with random weights.
            config.token_classification_bias = False
            super().__init__(config)
            self.reads_surprise = getattr(config, "surprise", False)
            self.extra_outputs = tuple(config.id2label.values())[len(OUTPUTS) :]
            self.reads_lookback = getattr(config, "lookback", False)
            text = config.get_text_config()
            width = text.hidden_size + SURPRISES * self.reads_surprise + text.num_hidden_layers * self.reads_lookback
            # No dropout and no bias: scores are deterministic, and servers support such a head.
            self.score = nn.Linear(width, len(config.id2label), bias=False)
            self.post_init()

        def forward(self, step_ends: Tensor | None = None, **inputs: Any) -> Any:
            if step_ends is None:  # generation, as in the backbone
                return super().forward(**inputs)
            with looking_back(_images(self, inputs)) if self.reads_lookback else nullcontext() as looked:
                hidden_BTD, places, taught_N = read_rows(self, inputs)
            features_BSF = _at(hidden_BTD, step_ends)
            states, read_BS2 = hidden_BTD if "past_key_values" in inputs else None, None
            if self.reads_surprise:
                where = places["written_in"], places["before"], step_ends.shape[1]
                read_BS2 = surprise(self.lm_head, hidden_BTD, inputs["input_ids"], *where)
                features_BSF = torch.cat([features_BSF, read_BS2.log1p().to(features_BSF.dtype)], dim=-1)
            if looked is not None:
                ratios_BSL = step_means(torch.stack(looked.shares, -1), places["written_in"], step_ends.shape[1])
                features_BSF = torch.cat([features_BSF, ratios_BSL.to(features_BSF.dtype)], dim=-1)
            logits_BSO = self.score(features_BSF)
            classes, extra = logits_BSO[..., : len(OUTPUTS)], extra_logits(logits_BSO, self.extra_outputs)
            return StepOutput(logits=classes, surprise=read_BS2, taught_nats=taught_N, states=states, **extra)

    StepRewardModel.__name__ = backbone_class.__name__.replace("ForConditionalGeneration", "ForTokenClassification")
    StepRewardModel.__qualname__ = StepRewardModel.__name__
    return StepRewardModel


@lru_cache
def verdict_class(backbone_class: Any, right: int, wrong: int) -> type[PreTrainedModel]:
    """The backbone's class, under its own name, whose `forward` takes a batch of `InputBuilder.step_batch` and returns
    the log-probabilities of the two verdicts at the step ends."""

    class VerdictRewardModel(backbone_class):  # type: ignore[misc]
        accepts_loss_kwargs = True

        def forward(self, step_ends: Tensor | None = None, **inputs: Any) -> Any:
            if step_ends is None:
                return super().forward(**inputs)
            hidden_BTD, _, taught_N = read_rows(self, inputs)
            log_p_BSV = self.lm_head(_at(hidden_BTD, step_ends)).float().log_softmax(-1)
            states = hidden_BTD if "past_key_values" in inputs else None
            return StepOutput(logits=log_p_BSV[..., [right, wrong]], taught_nats=taught_N, states=states)

    VerdictRewardModel.__name__ = VerdictRewardModel.__qualname__ = backbone_class.__name__
    return VerdictRewardModel


@lru_cache
def scalar_class(backbone_class: Any) -> type[PreTrainedModel]:
    """The backbone's class with a linear layer `score` of one output, whose logistic is the probability of `correct`.
    Outputs are those of a verdict head."""

    class ScalarRewardModel(backbone_class):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.score = nn.Linear(config.get_text_config().hidden_size, 1)
            self.post_init()

        def forward(self, step_ends: Tensor | None = None, **inputs: Any) -> Any:
            if step_ends is None:
                return super().forward(**inputs)
            hidden_BTD, _, taught_N = read_rows(self, inputs)
            logit_BS1 = self.score(_at(hidden_BTD, step_ends)).float()
            states = hidden_BTD if "past_key_values" in inputs else None
            pair_BS2 = torch.cat([logit_BS1, torch.zeros_like(logit_BS1)], dim=-1)
            return StepOutput(logits=pair_BS2, taught_nats=taught_N, states=states)

    ScalarRewardModel.__name__ = ScalarRewardModel.__qualname__ = backbone_class.__name__
    return ScalarRewardModel


def read_rows(model: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
    """Run the backbone on a batch of `InputBuilder.step_batch`. Returns (B, T, D) last hidden states, after those that
    were `kept` (`vlprm.scoring.kv_tree`); the places of the steps; and (N) nats of the ids to learn, or None."""
    places: dict[str, Tensor] = {name: batch[name] for name in ("written_in", "before", "taught") if name in batch}
    inputs = {name: value for name, value in batch.items() if name not in (*places, "until", "kept", "kept_images")}
    if "until" in batch:
        inputs["attention_mask"] = mask_for(model, batch["until"])
    hidden_BTD = model.model(**inputs, use_cache="past_key_values" in inputs).last_hidden_state
    if "kept" in batch:
        hidden_BTD = torch.cat([batch["kept"], hidden_BTD], dim=1)
    if "taught" not in places:
        return hidden_BTD, places, None
    return (
        hidden_BTD,
        places,
        token_nats(model.lm_head, hidden_BTD, batch["input_ids"], places["taught"], places["before"]),
    )


def _images(model: Any, batch: dict[str, Any]) -> Tensor:
    """(B, K) which keys are image tokens: kept ones, if there are any, and new ones."""
    new_BT = batch["input_ids"] == model.config.image_token_id
    return torch.cat([batch["kept_images"], new_BT], dim=1) if "kept_images" in batch else new_BT


def steps_of_written(written_BT: Tensor, steps: int) -> Tensor:
    """(N) the step of each id that the policy wrote, counted through the rows, which have S steps each."""
    written = written_BT >= 0
    rows, _ = written.nonzero(as_tuple=True)
    step_N: Tensor = rows * steps + written_BT[written]
    return step_N


def step_means(values_BTL: Tensor, written_BT: Tensor, steps: int) -> Tensor:
    """(B, S, L) means over the ids that the policy wrote in each step; 0 for padding."""
    written, step_N = written_BT >= 0, steps_of_written(written_BT, steps)
    sums = values_BTL.new_zeros(len(written_BT) * steps, values_BTL.shape[-1])
    counts = values_BTL.new_zeros(len(sums), 1).index_add(0, step_N, values_BTL.new_ones(len(step_N), 1))
    means: Tensor = sums.index_add(0, step_N, values_BTL[written]) / counts.clamp(min=1)
    return means.view(len(written_BT), steps, values_BTL.shape[-1])


def _at(hidden_BTD: Tensor, ends_BS: Tensor) -> Tensor:
    return hidden_BTD.gather(1, ends_BS.clamp(min=0)[:, :, None].expand(-1, -1, hidden_BTD.shape[-1]))


@torch.no_grad()
def surprise(
    lm_head: nn.Module, hidden_BTD: Tensor, ids_BT: Tensor, written_BT: Tensor, before_BT: Tensor, steps: int
) -> Tensor:
    """(B, S, 2) nats of each step's least likely token and of all its tokens; 0 for padding.

    Only ids that the policy wrote count, each predicted from the token before it on its path. No gradient, so that step
    labels do not train the LM head.
    """
    nats_N = token_nats(lm_head, hidden_BTD, ids_BT, written_BT >= 0, before_BT)
    step_N = steps_of_written(written_BT, steps)
    flat = torch.zeros(len(ids_BT) * steps, device=nats_N.device)
    worst, total = flat.scatter_reduce(0, step_N, nats_N, "amax"), flat.scatter_add(0, step_N, nats_N)
    return torch.stack([worst, total], dim=-1).view(len(ids_BT), steps, SURPRISES)
