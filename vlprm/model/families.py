"""Settings of each family of backbones, by the `model_type` of their config.

To support another family, add an entry here, or declare `family` in a checkpoint's `vlprm.json`. Everything else
(processors, chat templates, vision towers) comes from transformers' own classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from vlprm.errors import UserError
from vlprm.zoom.boxes import NO_DIALECT


@dataclass(frozen=True)
class Family:
    """Settings of one family of backbones.

    Args:
        positions: rotary positions of time, height and width (mrope), or one per token (linear).
        vision: name of the vision tower in `model.model`.
        projector: name of the module that projects vision states to the text layers' width.
        dialect: how models of the family write boxes (see vlprm.zoom.boxes); none if it is not documented.
        pixel_limits: whether the processor accepts a minimum and maximum number of pixels. Others resize every image
            to fixed sizes.
        token_types: the backbone's argument that marks image tokens, if it has one.
        tiles: how the tiles of several images form a batch: padded to the most tiles, joined as one image, or
            concatenated (the default).
        template: further arguments of the chat template.
        cannot_pack: why the family cannot read a tree as one sequence; empty if it can.
        stored_head: name of a step head in a saved checkpoint. vLLM loads the text layers of some families as a
            separate model and expects the head inside it.
    """

    positions: Literal["mrope", "linear"]
    vision: str
    projector: str
    dialect: str
    pixel_limits: bool = False
    token_types: Literal["mm_token_type_ids", "token_type_ids", ""] = ""
    tiles: Literal["", "padded", "joined"] = ""
    template: dict[str, Any] = field(default_factory=dict)
    cannot_pack: str = ""
    stored_head: str = "score"


_QWEN = Family("mrope", "visual", "visual.merger", "relative_1000", pixel_limits=True, token_types="mm_token_type_ids")
_QWEN2 = replace(_QWEN, stored_head="language_model.score")
_OTHER = Family("linear", "vision_tower", "multi_modal_projector", NO_DIALECT)
_LINEAR_ATTENTION = "its linear attention keeps a running state, which a mask cannot branch"
_OWN_MASKS = "it builds its own masks: windows by position, and bidirectional attention within images"

FAMILIES: dict[str, Family] = {
    "qwen2_vl": _QWEN2,
    "qwen2_5_vl": replace(_QWEN2, dialect="absolute_resized"),
    "qwen3_vl": _QWEN,
    "qwen3_5": replace(_QWEN, cannot_pack=_LINEAR_ATTENTION, template={"enable_thinking": False}),
    "internvl": replace(_OTHER, dialect="relative_1000"),
    "gemma3": replace(_OTHER, token_types="token_type_ids", cannot_pack=_OWN_MASKS),
    "llava_onevision": replace(_OTHER, tiles="padded"),
    "perception_lm": replace(_OTHER, tiles="joined"),
}


def family_of(config: Any) -> Family:
    """The family of a transformers config. UserError lists the known families."""
    if config.model_type not in FAMILIES:
        raise UserError(
            f"unknown family of backbones {config.model_type!r}; known: {', '.join(FAMILIES)}; declare it in"
            " vlprm.json, as docs/add_a_backbone.md shows"
        )
    return FAMILIES[config.model_type]
