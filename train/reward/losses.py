"""Losses of a step-reward model: step losses against targets or counts, and pairwise losses.

All are sums divided by `totals` over the global batch, so that padding and the split into micro-batches, devices or
trees do not change them. Shapes: B rows, S steps (padded), O outputs, N labelled steps, P pairs, C candidates.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from train.reward.config import LossConfig
from vlprm.model.reward_model import CORRECT, StepOutput, concentration

IGNORE = -100
NEVER = -1e9  # a logit of what is not there


def training_loss(output: StepOutput, batch: dict[str, Any], totals_6: Tensor, config: LossConfig) -> Tensor:
    """The loss of a batch of `train.reward.batches.batch_rows`. `totals_6` of the global batch: weight of labelled
    steps, sibling pairs, candidate pairs, weight of critique ids, weight of labelled steps with rollouts, ranked
    solutions."""
    log_p_BSO = log_probabilities(class_logits(output, batch), config)
    steps, siblings, candidates, taught, counted, ranked = totals_6.clamp(min=1e-6)
    loss: Tensor = config.steps * step_loss(log_p_BSO, batch, config, output.concentration) / steps
    if config.critique and output.taught_nats is not None:
        loss = loss + config.critique * (batch["taught_weights"] * output.taught_nats).sum() / taught
    logit_BS = log_p_BSO[..., CORRECT] - log_p_BSO[..., CORRECT + 1 :].logsumexp(-1)
    if config.siblings:
        loss = loss + config.siblings * pairwise_loss(logit_BS, batch["siblings"]) / siblings
    if config.candidates:
        mean_BC = candidate_means(logit_BS, batch["paths"])
        loss = loss + config.candidates * pairwise_loss(mean_BC, batch["candidates"]) / candidates
    if config.ranks:
        loss = loss + config.ranks * rank_loss(logit_BS, batch["ranked"], config.margin) / ranked
    if output.value is not None:
        loss = loss + config.value * value_loss(output.value, batch, config, output.concentration) / counted
    return loss


def class_logits(output: StepOutput, batch: dict[str, Any]) -> Tensor:
    """The logits of the classes (B, S, O). Those of an implicit head are the log-odds added up along a solution that
    the step is in, and 0."""
    if output.log_odds is None:
        logits_BSO: Tensor = output.logits
        return logits_BSO
    paths_BCS = batch["paths"].to(output.log_odds.dtype)
    sums_BCS = (paths_BCS * output.log_odds[:, None]).cumsum(-1)
    # The steps before a step are the same in each solution that it is in.
    sums_BS = (paths_BCS * sums_BCS).sum(1) / paths_BCS.sum(1).clamp(min=1)
    return torch.stack([sums_BS, torch.zeros_like(sums_BS)], dim=-1)


def log_probabilities(logits_BSO: Tensor, config: LossConfig) -> Tensor:
    """Log-probabilities of the outputs (B, S, O)."""
    # With `vocabulary`, the logits are already log-probabilities over the whole vocabulary.
    return logits_BSO.float() if config.vocabulary else F.log_softmax(logits_BSO.float(), dim=-1)


def step_loss(
    log_p_BSO: Tensor, batch: dict[str, Any], config: LossConfig, concentration_BS: Tensor | None = None
) -> Tensor:
    """Weighted sum over labelled steps: cross-entropy with the target (p for correct, 1 - p for the error kind), or the
    negative log-likelihood of the counts and of the error kind. If the kind is unknown or not trained, the error
    outputs are summed. `concentration_BS` has the logits of learned concentrations."""
    labelled_BS = batch["labels"] != IGNORE
    log_p_NO = log_p_BSO[labelled_BS]
    weight_N: Tensor = batch["weights"][labelled_BS]
    log_right_N, log_error_N = log_p_NO[:, CORRECT], log_p_NO[:, CORRECT + 1 :].logsumexp(-1)
    target_N, kind_N = batch["labels"][labelled_BS], batch["error_kinds"][labelled_BS]
    log_kind_N = log_error_N
    if config.error_kinds and log_p_NO.shape[-1] > CORRECT + 2:
        log_kind_N = log_p_NO.gather(1, kind_N.clamp(min=0)[:, None]).squeeze(1)
        log_kind_N = torch.where(kind_N >= 0, log_kind_N, log_error_N)
    if config.labels == "counts":
        learned_N = None if concentration_BS is None else concentration_BS[labelled_BS]
        nats_N = count_nats(log_right_N, batch["counts"][labelled_BS], learned_N, config)
        log_N: Tensor = (1 - target_N) * (log_kind_N - log_error_N) - nats_N
    else:
        log_N = target_N * log_right_N + (1 - target_N) * log_kind_N
    return -(weight_N * log_N).sum()


def value_loss(
    value_BS: Tensor, batch: dict[str, Any], config: LossConfig, concentration_BS: Tensor | None = None
) -> Tensor:
    """Weighted sum over labelled steps with rollouts: negative log-likelihood of their counts under the value.
    `value_BS` has its logits, `concentration_BS` those of learned concentrations."""
    counted_BS = (batch["labels"] != IGNORE) & (batch["counts"][..., 1] > 0)
    log_p_N = F.logsigmoid(value_BS[counted_BS].float())
    learned_N = None if concentration_BS is None else concentration_BS[counted_BS]
    weight_N: Tensor = batch["weights"][counted_BS]
    return (weight_N * count_nats(log_p_N, batch["counts"][counted_BS], learned_N, config)).sum()


def count_nats(log_mean_N: Tensor, counts_N2: Tensor, learned_N: Tensor | None, config: LossConfig) -> Tensor:
    """Negative log-likelihood (N,) of counts (right, valid). With the logits `learned_N` of learned concentrations, it
    has BetaPRM's penalty on a high one where the mean misses the share of right rollouts (arXiv 2605.15529)."""
    if learned_N is None:
        assert not isinstance(config.concentration, str)
        return -beta_binomial(log_mean_N, counts_N2, config.concentration)
    concentration_N, (right_N, all_N) = concentration(learned_N), counts_N2.unbind(-1)
    missed_N = (log_mean_N.detach().exp() - right_N / all_N.clamp(min=1)).abs()
    penalty_N: Tensor = config.evidence * missed_N * concentration_N
    return penalty_N - beta_binomial(log_mean_N, counts_N2, concentration_N)


def beta_binomial(log_mean_N: Tensor, counts_N2: Tensor, rollouts: float | Tensor) -> Tensor:
    """Log-likelihood (N,) of counts (right, valid) under a Beta-Binomial with this mean and a concentration in
    `rollouts`, without the constant binomial coefficient."""
    right_N, all_N = counts_N2.double().unbind(-1)  # float32 loses the differences of a high concentration
    mean_N = log_mean_N.double().exp().clamp(1e-4, 1 - 1e-4)
    a_N, b_N = mean_N * rollouts, (1 - mean_N) * rollouts
    return (_log_beta(a_N + right_N, b_N + all_N - right_N) - _log_beta(a_N, b_N)).float()


def pairwise_loss(logit_BK: Tensor, pairs_P3: Tensor) -> Tensor:
    """Bradley-Terry loss: sum of -log sigmoid(better - worse) over pairs (row, better, worse)."""
    row_P, better_P, worse_P = pairs_P3.unbind(-1)
    return -F.logsigmoid(logit_BK[row_P, better_P] - logit_BK[row_P, worse_P]).sum()


def rank_loss(logit_BS: Tensor, ranked_BCS: Tensor, margin: float) -> Tensor:
    """PQM's loss (arXiv 2410.11287), summed over solutions. With the logits Q of a solution's correct steps 1..n and of
    its error w: the mean over its correct steps t of

        -log e^Q_t / (e^Q_1 + ... + e^Q_t + e^0 + e^(Q_w + margin))

    The e^0, which keeps correct steps above a probability of one half, is there only if there is an error. Later steps
    of a solution stand after earlier ones in `ranked_BCS`."""
    right_BCS, wrong_BCS = ranked_BCS > 0, ranked_BCS < 0
    logit_BCS = logit_BS[:, None].expand(ranked_BCS.shape)
    so_far_BCS = logit_BCS.masked_fill(~right_BCS, NEVER).logcumsumexp(-1)
    half_BC1 = torch.zeros_like(so_far_BCS[..., :1]).masked_fill(~wrong_BCS.any(-1, keepdim=True), NEVER)
    errors_BCE = torch.cat([half_BC1, (logit_BCS + margin).masked_fill(~wrong_BCS, NEVER)], dim=-1)
    nats_BCS = torch.logaddexp(so_far_BCS, errors_BCE.logsumexp(-1, keepdim=True)) - logit_BCS
    return (nats_BCS * right_BCS / right_BCS.sum(-1, keepdim=True).clamp(min=1)).sum()


def candidate_means(logit_BS: Tensor, paths_BCS: Tensor) -> Tensor:
    """(B, C) mean logit of each candidate's steps; `paths_BCS` is 1 for the steps of a candidate."""
    paths_BCS = paths_BCS.to(logit_BS.dtype)
    return torch.einsum("bs,bcs->bc", logit_BS, paths_BCS) / paths_BCS.sum(-1).clamp(min=1)


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
