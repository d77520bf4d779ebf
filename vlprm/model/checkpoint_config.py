"""`vlprm.json`: what a checkpoint declares of itself beside its transformers files, so that nothing is guessed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from vlprm.errors import UserError
from vlprm.model.families import Family
from vlprm.schema import Aggregation, structured
from vlprm.zoom.boxes import DIALECTS, NO_DIALECT
from vlprm.zoom.policy import ZoomPolicy

FILE_NAME = "vlprm.json"
Head = Literal["step", "verdict"]
Bits = Literal[4, 8, 16]  # of the weights of a frozen backbone
Part = Literal["vision", "projector", "text"]


@dataclass(frozen=True)
class CheckpointConfig:
    """The declared properties of a policy or a reward model.

    `head` is `none` for a policy, and for a reward model `step` (a linear layer) or `verdict` (one of the two tokens
    `verdicts`, correct and wrong, that answer the question of `verdict_template` after each step). `step_format` names
    how solutions are cut into steps; there is one (`vlprm.steps`), and a checkpoint that was made for another is
    refused. `min_pixels` and `max_pixels` limit each image, in pixels as the vision tower sees them; None is the limit
    of the checkpoint's own processor. `zoom` is how the model zooms, and sees what was zoomed. `aggregation` is the
    rule fixed in advance for turning step rewards into a solution's. `family` says what our code has to know of its
    backbone, where `vlprm.model.families.FAMILIES` does not have it. `provenance` says what made the weights: command,
    seed, data hash, hours.
    """

    head: Literal["none", "step", "verdict"] = "none"
    verdicts: tuple[str, str] = ("+", "-")
    verdict_template: str = "verdict@1"
    step_format: Literal["tagged@1"] = "tagged@1"
    dialect: str = "relative_1000"
    prompt_template: str = "plain@1"
    min_pixels: int | None = None
    max_pixels: int | None = None
    zoom: ZoomPolicy = ZoomPolicy()
    aggregation: Aggregation = "min"
    family: Family | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        (folder / FILE_NAME).write_text(json.dumps(asdict(self), indent=2) + "\n")


def load_checkpoint_config(folder: Path) -> CheckpointConfig:
    """Read a checkpoint's profile, which has to declare its box dialect. UserError names the folder, and what is
    missing, foreign or of a wrong type."""
    path = folder / FILE_NAME
    if not path.is_file():
        raise UserError(
            f"{folder} has no {FILE_NAME}; is it a checkpoint of vlprm?"
            " `vlprm.model.checkpoint_config.CheckpointConfig` writes one"
        )
    try:
        record = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}); copy the checkpoint again") from error
    checkpoint_config = structured(CheckpointConfig, record, f"{path} is not the profile of a checkpoint, correct it")
    known = f"{', '.join(DIALECTS)}, or {NO_DIALECT} for a model that writes no boxes"
    if "dialect" not in record:
        raise UserError(f'{path} declares no box dialect, and none is guessed; add "dialect": one of {known}')
    if checkpoint_config.dialect not in (*DIALECTS, NO_DIALECT):
        raise UserError(f"{path} declares the box dialect {checkpoint_config.dialect!r}; declare one of {known}")
    return checkpoint_config
