"""Negative log-likelihoods of chosen tokens of packed rows, without logits over the vocabulary for all tokens at once.

Shapes: B rows, T tokens, D width, N chosen tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

LOGITS = 1024  # tokens whose logits over the vocabulary are in memory at once


def token_nats(
    lm_head: nn.Module,
    hidden_BTD: Tensor,
    ids_BT: Tensor,
    chosen_BT: Tensor,
    before_BT: Tensor,
    temperature: float = 1.0,
    banned: Sequence[int] = (),
) -> Tensor:
    """(N) negative log-likelihoods of the chosen ids, each predicted from the token before it on its path, as a policy
    samples them: at the `temperature`, with `banned` ids left out."""
    rows, _ = chosen_BT.nonzero(as_tuple=True)
    hidden_ND, ids_N = hidden_BTD[rows, before_BT[chosen_BT]], ids_BT[chosen_BT]
    # ZeRO-3 gathers the weights at each call on all ranks. Their numbers of tokens differ, their numbers of calls may
    # not.
    sharded = any(hasattr(weight, "ds_id") for weight in lm_head.parameters())
    size = max(1, len(ids_N)) if sharded else LOGITS
    parts = zip(torch.split(hidden_ND, size), torch.split(ids_N, size), strict=True)
    return torch.cat([_nats_of(lm_head, *part, temperature, tuple(banned)) for part in parts])


def _nats_of(
    lm_head: nn.Module, hidden_ND: Tensor, ids_N: Tensor, temperature: float, banned: tuple[int, ...]
) -> Tensor:
    def computed(hidden_ND: Tensor) -> Tensor:
        logits_NV = lm_head(hidden_ND).float()
        if banned:
            logits_NV = logits_NV.index_fill(1, torch.tensor(banned, device=logits_NV.device), -torch.inf)
        return F.cross_entropy(logits_NV / temperature, ids_N, reduction="none")

    if not torch.is_grad_enabled():
        return computed(hidden_ND)
    nats_N: Tensor = checkpoint(computed, hidden_ND, use_reentrant=False)  # the logits are computed again in backward
    return nats_N
