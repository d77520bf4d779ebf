"""Qwen-VL's three-row positions (M-RoPE)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def mrope_positions(
    image_mask: Sequence[bool], grids: Sequence[tuple[int, ...]], merge: int, start: int
) -> tuple[Tensor, int]:
    """(3, T) temporal, height and width positions of Qwen's multimodal rotary embedding, and the next position.

    Text advances all three by one per token. An image keeps the temporal position and counts the rows and columns of
    its merged patches; what follows starts after the larger of the two (Qwen3-VL's get_rope_index for images).
    """
    parts, position, token = [], start, 0
    remaining = iter(grids)
    while token < len(image_mask):
        if image_mask[token]:
            _, height, width = (n // merge if k else n for k, n in enumerate(next(remaining)))
            cell = torch.arange(height * width)
            parts.append(torch.stack([torch.zeros_like(cell), cell // width, cell % width]) + position)
            token, position = token + height * width, position + max(height, width)
        else:
            run = token
            while run < len(image_mask) and not image_mask[run]:
                run += 1
            parts.append((torch.arange(run - token) + position).expand(3, -1))
            position, token = position + run - token, run
    return torch.cat(parts, dim=1), position
