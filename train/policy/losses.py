"""The losses of a policy on packed rows: rollouts, right solutions, pairs of next steps.

The loss of a tree of rollouts is exactly the sum of the losses of its paths, with each token computed once. A shared
token has one probability and one ratio, and an advantage per path through it. A clipped term depends only on the
advantage's sign, so a token needs two numbers: the sums of its positive and of its negative weighted advantages.

Shapes: N trained tokens, R paths, M (path, token) pairs; S compared steps, P pairs of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from train.policy.config import PolicyLossConfig


@dataclass(frozen=True)
class PathTokens:
    """Which trained tokens are on which paths. `path` and `token` (M) are the pairs; `lengths` (R) has the number of
    trained tokens of each path."""

    path: Tensor
    token: Tensor
    lengths: Tensor

    def sum_by_token(self, values_M: Tensor, tokens: int) -> Tensor:
        """(N) sums of the pairs' values over the paths of each token."""
        return values_M.new_zeros(tokens).index_add(0, self.token, values_M)

    def sum_by_path(self, values_N: Tensor) -> Tensor:
        """(R) sums of the tokens' values along each path."""
        return values_N.new_zeros(len(self.lengths)).index_add(0, self.path, values_N[self.token])


def tree_policy_loss(
    log_p_N: Tensor, batch: dict[str, Any], totals_2: Tensor, config: PolicyLossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch of `train.policy.batches.policy_batch` with `reference` (N), the reference policy's
    log-probabilities, and its measures (sums over pairs, without gradient). `totals_2` of the global batch: its paths,
    and their trained tokens."""
    on = PathTokens(batch["path"], batch["token"], batch["lengths"])
    sampled_N = batch["sampled"]
    old_N = batch.get("old", sampled_N)
    weight_M = path_weights(on, config)[on.path]
    importance_N = (old_N - sampled_N).exp().clamp(max=config.is_cap)
    signed_M = weight_M * importance_N[on.token] * batch["advantages"]
    if config.clip == "sequence":
        surrogate, ratio_M = _by_path(log_p_N - old_N, signed_M, on, config)
    else:
        surrogate, ratio_M = _by_token(log_p_N, old_N, signed_M, on, config)
    loss = -surrogate
    measures = _measures(ratio_M, batch["advantages"], importance_N[on.token], config)
    k3_N = kl_of(log_p_N, batch["reference"])
    measures["kl"] = k3_N.detach()[on.token].sum()
    if config.kl:
        loss = loss + config.kl * (on.sum_by_token(weight_M, len(log_p_N)) * k3_N).sum()
    paths, tokens = totals_2.clamp(min=1)
    return loss / (tokens if config.per == "token" else paths), measures


def path_weights(on: PathTokens, config: PolicyLossConfig) -> Tensor:
    """(R) weight of each token of a path, before the division by the global batch's paths or tokens."""
    if config.per == "path":
        return 1 / on.lengths.clamp(min=1).float()
    return torch.full(on.lengths.shape, 1 / config.length if config.per == "constant" else 1.0, device=on.path.device)


def kl_of(log_p_N: Tensor, reference_N: Tensor) -> Tensor:
    """(N) the estimate k3 of the divergence from the reference policy, never negative."""
    apart_N = reference_N - log_p_N
    return apart_N.exp() - apart_N - 1


def sft_loss(log_p_N: Tensor, batch: dict[str, Any], totals_2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean negative log-likelihood of the solutions' tokens in a batch of `train.policy.batches.policy_batch`; a
    token counts once for each solution that has it. No measures besides the loss."""
    on = PathTokens(batch["path"], batch["token"], batch["lengths"])
    return -log_p_N[on.token].sum() / totals_2[1].clamp(min=1), {}


def dpo_loss(
    log_p_N: Tensor, batch: dict[str, Any], totals_1: Tensor, beta: float, nll: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean loss of the pairs in a batch of `train.policy.pair_rows.pair_batch`, and its measures (sums over pairs):
    the log-ratios to the reference of both steps, and how often the better one's is larger. Steps of a pair follow the
    same prefix, whose tokens cancel. `nll` adds the better step's negative log-likelihood per token."""
    length_S = batch["lengths"]
    log_p_S = log_p_N.new_zeros(len(length_S)).index_add(0, batch["step"], log_p_N)
    ratio_S = log_p_S - batch["reference"]
    better_P, worse_P = ratio_S[batch["better"]], ratio_S[batch["worse"]]
    loss = -F.logsigmoid(beta * (better_P - worse_P)).sum()
    if nll:
        loss = loss - nll * (log_p_S / length_S)[batch["better"]].sum()
    measures = {
        "better_log_ratio": better_P.detach().sum(),
        "worse_log_ratio": worse_P.detach().sum(),
        "preferred": (better_P > worse_P).sum().float(),
        "pairs": torch.tensor(float(len(better_P)), device=log_p_N.device),
    }
    return loss / totals_1[0].clamp(min=1), measures


def _by_token(
    log_p_N: Tensor, old_N: Tensor, signed_M: Tensor, on: PathTokens, config: PolicyLossConfig
) -> tuple[Tensor, Tensor]:
    """The surrogate objective with one ratio per token, and the ratio of each pair."""
    ratio_N = (log_p_N - old_N).exp()
    up_N = on.sum_by_token(signed_M.clamp(min=0), len(log_p_N))
    down_N = on.sum_by_token(signed_M.clamp(max=0), len(log_p_N))
    if config.clip == "cispo":
        value = (ratio_N.detach().clamp(max=1 + config.high) * (up_N + down_N) * log_p_N).sum()
    else:
        value = _clipped(ratio_N, up_N, down_N, config)
    return value, ratio_N.detach()[on.token]


def _by_path(apart_N: Tensor, signed_M: Tensor, on: PathTokens, config: PolicyLossConfig) -> tuple[Tensor, Tensor]:
    """The surrogate objective with one ratio per path, and the ratio of each pair."""
    ratio_R = (on.sum_by_path(apart_N) / on.lengths.clamp(min=1)).exp()
    none_R = torch.zeros_like(ratio_R)
    up_R = none_R.index_add(0, on.path, signed_M.clamp(min=0))
    down_R = none_R.index_add(0, on.path, signed_M.clamp(max=0))
    return _clipped(ratio_R, up_R, down_R, config), ratio_R.detach()[on.path]


def _clipped(ratio: Tensor, up: Tensor, down: Tensor, config: PolicyLossConfig) -> Tensor:
    """min(ratio A, clip(ratio) A), summed: for A >= 0 it is A min(ratio, 1 + high), else A max(ratio, 1 - low)."""
    if config.clip == "none":
        return (ratio * (up + down)).sum()
    return (ratio.clamp(max=1 + config.high) * up + ratio.clamp(min=1 - config.low) * down).sum()


def _measures(
    ratio_M: Tensor, advantage_M: Tensor, importance_M: Tensor, config: PolicyLossConfig
) -> dict[str, Tensor]:
    above_M = (ratio_M > 1 + config.high) & ((advantage_M > 0) | (config.clip == "cispo"))
    below_M = (ratio_M < 1 - config.low) & (advantage_M < 0) & (config.clip != "cispo")
    clipped_M = (above_M | below_M) & (config.clip != "none")
    return {
        "ratio": ratio_M.sum(),
        "clipped": clipped_M.sum().to(ratio_M.dtype),
        "importance": importance_M.sum(),
        "pairs": torch.tensor(float(len(ratio_M)), device=ratio_M.device),
    }
