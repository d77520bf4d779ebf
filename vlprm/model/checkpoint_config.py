"""`vlprm.json`: the properties that a checkpoint declares in addition to its transformers files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from vlprm.errors import UserError
from vlprm.model.families import Family
from vlprm.prompts import CritiqueTemplate, critique_template, default_critique
from vlprm.schema import Aggregation, structured
from vlprm.zoom.boxes import DIALECTS, NO_DIALECT
from vlprm.zoom.policy import ZoomPolicy

CHECKPOINT_FILE = "vlprm.json"
Head = Literal["step", "verdict", "implicit"]
BETA = 0.05  # the beta of an implicit head, as in its paper
Bits = Literal[4, 8, 16]  # bits per weight of a frozen backbone
Part = Literal["vision", "projector", "text"]


@dataclass(frozen=True)
class CheckpointConfig:
    """The declared properties of a policy or a reward model.

    Args:
        head: none (a policy), step (a linear layer), verdict (the LM head answers a question after each step) or
            implicit (log-ratios to a reference).
        beta: implicit head: log-odds per nat of a log-ratio.
        verdicts: the two tokens with which a verdict head answers: correct, wrong.
        verdict_template: the question to a verdict head.
        step_format: how solutions are split into steps; only the format of `vlprm.steps` is known.
        dialect: how the model writes boxes (see vlprm.zoom.boxes).
        prompt_template: the prompt that the model was trained with (see vlprm.prompts).
        critique_template: the question and the form of the model's critiques; None: those of its prompt template.
        min_pixels: images are enlarged to at least this many pixels; None: the processor's limit.
        max_pixels: images are reduced to at most this many pixels; None: the processor's limit.
        zoom: how the model zooms and sees the crop.
        aggregation: how the rewards of steps become the reward of a solution, fixed in advance.
        family: settings of the backbone's family if `vlprm.model.families.FAMILIES` does not list it.
        provenance: origin of the weights: command, seed, data hash, hours.
    """

    head: Literal["none", "step", "verdict", "implicit"] = "none"
    beta: float = BETA
    verdicts: tuple[str, str] = ("+", "-")
    verdict_template: str = "verdict@1"
    step_format: Literal["tagged@1"] = "tagged@1"
    dialect: str = "relative_1000"
    prompt_template: str = "plain@1"
    critique_template: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    zoom: ZoomPolicy = ZoomPolicy()
    aggregation: Aggregation = "min"
    family: Family | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def critiques(self) -> CritiqueTemplate:
        """How the model is asked for critiques. UserError for an unknown template."""
        return critique_template(self.critique_template or default_critique(self.prompt_template))

    def save(self, folder: Path) -> None:
        """Write `vlprm.json` into the folder."""
        (folder / CHECKPOINT_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


def load_checkpoint_config(folder: Path) -> CheckpointConfig:
    """Read a checkpoint's `vlprm.json`, which must declare a box dialect. UserError names the folder and the field that
    is missing, unknown or of a wrong type."""
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        raise UserError(
            f"{folder} has no {CHECKPOINT_FILE}; is it a checkpoint of vlprm?"
            " `vlprm.model.checkpoint_config.CheckpointConfig` writes one"
        )
    try:
        record = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}); copy the checkpoint again") from error
    checkpoint_config = structured(CheckpointConfig, record, f"{path} does not describe a checkpoint, correct it")
    known = f"{', '.join(DIALECTS)}, or {NO_DIALECT} for a model that writes no boxes"
    if "dialect" not in record:
        raise UserError(f'{path} declares no box dialect; add "dialect": one of {known}')
    if checkpoint_config.dialect not in (*DIALECTS, NO_DIALECT):
        raise UserError(f"{path} declares the box dialect {checkpoint_config.dialect!r}; declare one of {known}")
    return checkpoint_config
