"""How large a built-in model is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Widths and depths of a small Qwen3-VL. Attention heads in the decoder have width 32.

    Args:
        text_width: width of the decoder.
        text_layers: layers of the decoder.
        text_heads: attention heads of the decoder.
        kv_heads: heads of its keys and values.
        text_mlp: width inside its feed-forward layers.
        vision_width: width of the vision tower.
        vision_layers: layers of the vision tower.
        vision_heads: attention heads of the vision tower.
        vision_mlp: width inside its feed-forward layers.
        patch: side of a patch in pixels; 2 x 2 patches make one token.
        image_side: images are shrunk to at most the area of a square with this side, in pixels.
    """

    text_width: int = 192
    text_layers: int = 4
    text_heads: int = 6
    kv_heads: int = 2
    text_mlp: int = 512
    vision_width: int = 128
    vision_layers: int = 2
    vision_heads: int = 4
    vision_mlp: int = 512
    patch: int = 16
    image_side: int = 128
