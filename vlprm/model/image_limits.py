"""Between how many pixels a model sees an image: the limits of its processor, or those that a checkpoint declares.

Declared limits are set in the processor itself, so that it saves them, and whoever loads what was saved sees the same.
"""

from __future__ import annotations

from typing import Any

from vlprm.errors import UserError
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.families import FAMILIES, Family

Limits = tuple[int, int]
NAMES = ("shortest_edge", "longest_edge")  # of the limits in a processor's `size`, which count pixels
OLDER_NAMES = ("min_pixels", "max_pixels")  # which the processors of older versions keep beside `size`


def limits_of(processor: Any, family: Family) -> Limits | None:
    """The limits of a processor; None where it brings every image to sizes of its own."""
    if not family.pixel_limits:
        return None
    size = dict(processor.image_processor.size)
    least, most = (size.get(name) for name in NAMES)
    return None if least is None or most is None else (least, most)


def set_limits(processor: Any, family: Family, checkpoint_config: CheckpointConfig) -> Limits | None:
    """Set the limits that a profile declares, and return those that now hold. UserError where the processor takes
    none, or where no image can be within them."""
    declared = (checkpoint_config.min_pixels, checkpoint_config.max_pixels)
    if declared == (None, None):
        return limits_of(processor, family)
    if not family.pixel_limits:
        takers = [name for name, known in FAMILIES.items() if known.pixel_limits]
        raise UserError(
            f"{type(processor).__name__} brings every image to a size of its own; leave out min_pixels and max_pixels,"
            f" which {', '.join(takers)} take"
        )
    own = limits_of(processor, family) or (None, None)
    least, most = (of_own if value is None else value for value, of_own in zip(declared, own, strict=True))
    if least is None or most is None:
        raise UserError(f"{type(processor).__name__} declares no limits; give both min_pixels and max_pixels")
    if min(least, most) < 1:
        raise UserError(f"{min(least, most)} pixels are no image; give min_pixels and max_pixels from 1 on")
    if least > most:
        raise UserError(f"no image has {least} to {most} pixels; lower min_pixels, or raise max_pixels")
    images = processor.image_processor
    images.size = dict(zip(NAMES, (least, most), strict=True))
    for name, value in zip(OLDER_NAMES, (least, most), strict=True):
        if getattr(images, name, None) is not None:
            setattr(images, name, value)
    return least, most


def described(limits: Limits | None, own: Limits | None) -> str:
    """How images are seen, for a log: by the limits that hold, and those that the processor has of its own."""
    if limits is None:
        return "images are brought to sizes of its processor's own"
    seen = f"images are seen at {limits[0]} to {limits[1]} pixels"
    if limits == own:
        return f"{seen}, the limits of its processor"
    return f"{seen}, its processor's limits being {own[0]} to {own[1]}" if own else seen


def to_serve(limits: Limits | None) -> str:
    """What to do about a server that reads other tokens than the folder that it serves makes here."""
    if limits is None:
        return "serve that folder"
    return (
        f"serve that folder; images are seen here at {limits[0]} to {limits[1]} pixels, which the folder's"
        " processor_config.json (preprocessor_config.json in older ones) has to say in its size"
    )
