"""Limits on the number of pixels at which a model sees an image: its processor's, or its checkpoint's declared ones.

Declared limits are set in the processor, so that it saves them and other programs that load it apply the same limits.
"""

from __future__ import annotations

from typing import Any

from vlprm.errors import UserError
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.families import FAMILIES, Family

Limits = tuple[int, int]
NAMES = ("shortest_edge", "longest_edge")  # keys of the limits in a processor's `size`, in pixels
OLDER_NAMES = ("min_pixels", "max_pixels")  # attributes of older processors, in addition to `size`


def limits_of(processor: Any, family: Family) -> Limits | None:
    """The processor's (smallest, largest) number of pixels; None if it has no limits."""
    if not family.pixel_limits:
        return None
    size = dict(processor.image_processor.size)
    least, most = (size.get(name) for name in NAMES)
    return None if least is None or most is None else (least, most)


def set_limits(processor: Any, family: Family, checkpoint_config: CheckpointConfig) -> Limits | None:
    """Set the limits that a checkpoint declares, and return the limits now in force. UserError if the processor does
    not accept limits or no image can meet them."""
    declared = (checkpoint_config.min_pixels, checkpoint_config.max_pixels)
    if declared == (None, None):
        return limits_of(processor, family)
    if not family.pixel_limits:
        takers = [name for name, known in FAMILIES.items() if known.pixel_limits]
        raise UserError(
            f"{type(processor).__name__} resizes every image to fixed sizes; leave out min_pixels and max_pixels,"
            f" which only {', '.join(takers)} accept"
        )
    own = limits_of(processor, family) or (None, None)
    least, most = (of_own if value is None else value for value, of_own in zip(declared, own, strict=True))
    if least is None or most is None:
        raise UserError(f"{type(processor).__name__} declares no limits; give both min_pixels and max_pixels")
    if min(least, most) < 1:
        raise UserError(f"{min(least, most)} is not a number of pixels; give min_pixels and max_pixels of at least 1")
    if least > most:
        raise UserError(f"min_pixels {least} is above max_pixels {most}; lower min_pixels or raise max_pixels")
    images = processor.image_processor
    images.size = dict(zip(NAMES, (least, most), strict=True))
    for name, value in zip(OLDER_NAMES, (least, most), strict=True):
        if getattr(images, name, None) is not None:
            setattr(images, name, value)
    return least, most


def described(limits: Limits | None, own: Limits | None) -> str:
    """The limits in force, and the processor's own (`own`) if they differ, for a log line."""
    if limits is None:
        return "the processor resizes images to fixed sizes"
    seen = f"images are seen at {limits[0]} to {limits[1]} pixels"
    if limits == own:
        return f"{seen}, the limits of its processor"
    return f"{seen}; its processor's own limits are {own[0]} to {own[1]}" if own else seen


def to_serve(limits: Limits | None) -> str:
    """The fix, as a phrase, for a server that tokenizes inputs differently from the checkpoint folder that it should
    serve."""
    if limits is None:
        return "serve that folder"
    return (
        f"serve that folder; images are seen here at {limits[0]} to {limits[1]} pixels, which the folder's"
        " processor_config.json (or older preprocessor_config.json) must state in its size"
    )
