"""Attention over rows that branch: a FlexAttention block mask on a GPU, a dense mask for sdpa elsewhere; one rule.

transformers' attention interface dispatches on a name in the text layers' config; the vision tower keeps its own.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from vlprm.packing import tree_mask

TREE = "vlprm_tree"


def _forward(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any) -> Any:
    attend = flex_attention_forward if isinstance(attention_mask, BlockMask) else sdpa_attention_forward
    return attend(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(TREE, _forward)
AttentionMaskInterface.register(TREE, sdpa_mask)  # rows without branches need no more than sdpa does


def use_tree_attention(model: Any) -> None:
    """The text layers attend by sdpa, and by FlexAttention where a batch on a GPU branches."""
    model.config.get_text_config()._attn_implementation = TREE


def mask_for(until_BT: Tensor) -> Tensor | BlockMask:
    """What the text layers are given as their mask, for rows that branch (`vlprm.packing`)."""
    return block_mask(until_BT) if until_BT.is_cuda else tree_mask(until_BT)


def block_mask(until_BT: Tensor) -> BlockMask:
    """`vlprm.packing.tree_mask` in the blocks of FlexAttention: those that nobody sees are never computed."""

    def sees(b: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < until_BT[b, key])

    rows, length = until_BT.shape
    return create_block_mask(sees, rows, None, length, length, device=str(until_BT.device))
