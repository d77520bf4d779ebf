"""Attention kernels per part of the model."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from vlprm.errors import UserError


@dataclass(frozen=True)
class Attention:
    """The attention kernel of each part of the model. `flash` is the package flash-attn; it needs a GPU and bfloat16.

    Args:
        vision: kernel of the vision tower: sdpa, eager (plain PyTorch, if sdpa's kernels fail) or flash.
        text: kernel of the text layers: tree (sdpa; FlexAttention for packed trees on a GPU) or flash, which cannot
            read packed trees or questions after steps.
    """

    vision: Literal["sdpa", "eager", "flash"] = "sdpa"
    text: Literal["tree", "flash"] = "tree"

    @property
    def flash(self) -> bool:
        """Whether a part uses flash-attn."""
        return "flash" in (self.vision, self.text)


def refuse_missing_flash(attention: Attention) -> None:
    """UserError if flash-attn is asked for but not installed."""
    if attention.flash and find_spec("flash_attn") is None:
        raise UserError("flash-attn is not installed; pip install 'vlprm[flash]', or do not set attention to flash")
