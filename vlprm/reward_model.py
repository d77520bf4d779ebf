"""The step-reward model: any image-text-to-text backbone plus one linear layer named `score`, the LM head kept.

The class of a reward model is its backbone's class with `score` added, named `<Family>ForTokenClassification`: the
name by which servers recognise it, and one that transformers' loss lookup does not take for a language model's.
Outputs of the head: correct, perception error, reasoning error.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput

from vlprm.backbones import Checkpoint, checkpoint_folder, load_checkpoint
from vlprm.profile import Profile, load_profile

OUTPUTS = ("correct", "perception", "reasoning")
CORRECT = 0


@cache
def reward_class(backbone_class: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """The backbone's class with a step head. `forward` takes our batch (`step_ends` (B, S), -1 pads) and returns
    `logits` (B, S, 3) at the ends of steps, and nothing over the vocabulary."""

    class StepRewardModel(backbone_class):  # type: ignore[misc]
        # Tells the Trainer to count the labelled steps of a global batch and to leave the normalising to the loss.
        accepts_loss_kwargs = True

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            width = config.get_text_config().hidden_size
            # No dropout and no bias: scores are the same each time, and servers wrap such a head as it is.
            self.score = nn.Linear(width, len(OUTPUTS), bias=False)
            self.post_init()

        def forward(self, step_ends: Tensor, **inputs: Any) -> TokenClassifierOutput:
            hidden_BTD = self.model(**inputs, use_cache=False).last_hidden_state
            ends_BS1 = step_ends.clamp(min=0)[:, :, None]
            hidden_BSD = hidden_BTD.gather(1, ends_BS1.expand(-1, -1, hidden_BTD.shape[-1]))
            return TokenClassifierOutput(logits=self.score(hidden_BSD))

    StepRewardModel.__name__ = backbone_class.__name__.replace("ForConditionalGeneration", "ForTokenClassification")
    StepRewardModel.__qualname__ = StepRewardModel.__name__
    return StepRewardModel


def load_reward_model(
    name: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32, new_head: bool = False
) -> Checkpoint:
    """A reward model from its folder; or, with `new_head`, from a backbone's folder, with a head that starts at zero
    weights (every step equally likely right or wrong).

    ValueError where a weight is missing that should be there, or where a trained head is asked of a plain backbone.
    """
    folder = checkpoint_folder(name)
    head = load_profile(folder).head
    if not new_head and head != "step":
        raise ValueError(f"{folder} has no step head (vlprm.json says head: {head}); train one with train.prm")
    return load_checkpoint(folder, _Loader(new_head), device, dtype)


def save_reward_model(checkpoint: Checkpoint, folder: Path, profile: Profile) -> None:
    """A transformers folder that also holds `vlprm.json`. The profile is written last: a folder with one is whole."""
    checkpoint.model.save_pretrained(folder)
    checkpoint.inputs.processor.save_pretrained(folder)
    profile.save(folder)


class _Loader:
    """Stands where `load_checkpoint` expects a model class, and checks what transformers only prints: missing keys."""

    def __init__(self, new_head: bool) -> None:
        self.new_head = new_head

    def from_pretrained(self, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
        config = AutoConfig.from_pretrained(folder)
        backbone = AutoModelForImageTextToText._model_mapping[type(config)]
        model, report = reward_class(backbone).from_pretrained(
            folder, config=config, dtype=dtype, output_loading_info=True
        )
        expected = {"score.weight"} if self.new_head else set()
        if missing := set(report["missing_keys"]) - expected:
            raise ValueError(f"checkpoint {folder} lacks {len(missing)} weights, such as {min(missing)}; copy it again")
        if self.new_head:
            nn.init.zeros_(model.score.weight)
        return model
