"""The losses of a step-reward model: of steps against their targets or counts, and of pairs that should differ.

All are sums, divided by totals over the whole global batch (`totals`), so that neither padding nor the way in which a
batch is split into parts, devices or trees changes them. Shapes: B rows, S steps (padded), O outputs, N labelled steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from train.reward.config import LossConfig
from vlprm.model.reward_model import CORRECT, StepOutput

IGNORE = -100


def training_loss(output: StepOutput, batch: dict[str, Any], totals_4: Tensor, config: LossConfig) -> Tensor:
    """The loss of a batch of `train.reward.batches.batch_rows`, given the totals of its global batch: weight of the
    labelled steps, pairs of siblings, pairs of candidates, weight of the ids of critiques."""
    log_p_BSO = log_probabilities(output.logits, config)
    steps, siblings, candidates, taught = totals_4.clamp(min=1e-6)
    loss: Tensor = config.steps * step_loss(log_p_BSO, batch, config) / steps
    if config.critique and output.taught_nats is not None:
        loss = loss + config.critique * (batch["taught_weights"] * output.taught_nats).sum() / taught
    logit_BS = log_p_BSO[..., CORRECT] - log_p_BSO[..., CORRECT + 1 :].logsumexp(-1)
    if config.siblings:
        loss = loss + config.siblings * pairwise_loss(logit_BS, batch["siblings"]) / siblings
    if config.candidates:
        mean_BC = candidate_means(logit_BS, batch["paths"])
        loss = loss + config.candidates * pairwise_loss(mean_BC, batch["candidates"]) / candidates
    return loss


def log_probabilities(logits_BSO: Tensor, config: LossConfig) -> Tensor:
    """A verdict head's logits are log-probabilities over the vocabulary already."""
    return logits_BSO.float() if config.vocabulary else F.log_softmax(logits_BSO.float(), dim=-1)


def step_loss(log_p_BSO: Tensor, batch: dict[str, Any], config: LossConfig) -> Tensor:
    """Weighted sum over the labelled steps: the cross-entropy of the target (p correct, 1 - p its error kind), or the
    likelihood of the counts, and of the kind of what is wrong. Where the kind is not known or not to be learnt, the
    error outputs count as one."""
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
        log_p_N = beta_binomial(log_right_N, batch["counts"][labelled_BS], config.concentration)
        log_N: Tensor = log_p_N + (1 - target_N) * (log_kind_N - log_error_N)
    else:
        log_N = target_N * log_right_N + (1 - target_N) * log_kind_N
    return -(weight_N * log_N).sum()


def beta_binomial(log_right_N: Tensor, counts_N2: Tensor, concentration: float) -> Tensor:
    """Log-likelihood of (right, all) rollouts whose rate is Beta-distributed around the predicted reward, without the
    binomial coefficient, which no parameter changes."""
    right_N, all_N = counts_N2.unbind(-1)
    mean_N = log_right_N.exp().clamp(1e-4, 1 - 1e-4)
    a_N, b_N = mean_N * concentration, (1 - mean_N) * concentration
    return _log_beta(a_N + right_N, b_N + all_N - right_N) - _log_beta(a_N, b_N)


def pairwise_loss(logit_BK: Tensor, pairs_P3: Tensor) -> Tensor:
    """Sum of -log sigmoid(better - worse), after Bradley and Terry; a pair is (row, better, worse)."""
    row_P, better_P, worse_P = pairs_P3.unbind(-1)
    return -F.logsigmoid(logit_BK[row_P, better_P] - logit_BK[row_P, worse_P]).sum()


def candidate_means(logit_BS: Tensor, paths_BCS: Tensor) -> Tensor:
    """(B, C) mean logit of each candidate's steps; `paths` is 1 where a candidate has the step."""
    paths_BCS = paths_BCS.to(logit_BS.dtype)
    return torch.einsum("bs,bcs->bc", logit_BS, paths_BCS) / paths_BCS.sum(-1).clamp(min=1)


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
