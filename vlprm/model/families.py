"""What differs between families of backbones, by the `model_type` of their config. A new family is one entry here; or
the `family` that the `vlprm.json` of a checkpoint declares, without any change here.

Everything else (processors, chat templates, vision towers) is asked of transformers' own classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from vlprm.errors import UserError
from vlprm.zoom.boxes import NO_DIALECT


@dataclass(frozen=True)
class Family:
    """What our code has to know of a family.

    Args:
        positions: rotary positions of time, height and width (mrope), or one a token (linear).
        vision: the vision tower's module in `model.model`.
        projector: the module that brings its states to the text layers' width.
        dialect: how models of the family write boxes, see vlprm.zoom.execute; none where that is documented nowhere.
        pixel_limits: whether the processor takes the profile's smallest and largest image. Others bring every image to
            a size of their own.
        token_types: the name under which the backbone is told where images stand, if it has to be told.
        tiles: how images of several tiles make one batch: padded to the most tiles, joined as one image, or, as most
            do, one after the other.
        template: what the chat template is given beside the messages.
        cannot_pack: why a tree is not one sequence for it, if it is not.
        stored_head: what a step head is called in a checkpoint. vLLM makes the text layers of some families as a model
            of its own, and looks for the head there.
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
_LINEAR_ATTENTION = "its linear attention has a running state, which no mask can branch"
_OWN_MASKS = "its masks are its own: windows by position, and images that are seen both ways"

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
    """The family of a transformers config. UserError names those that are known."""
    if config.model_type not in FAMILIES:
        raise UserError(
            f"no family {config.model_type!r} of backbones; known: {', '.join(FAMILIES)}; declare it in"
            " vlprm.json, as docs/add_a_backbone.md says"
        )
    return FAMILIES[config.model_type]
