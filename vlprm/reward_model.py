"""The step-reward model: any image-text-to-text backbone plus one linear layer named `score`, the LM head kept.

`score` reads the state at a step's last token. With `surprise` it also reads how unlikely the step was to the
backbone's own LM head: a state cannot hold that by itself, since what the last layer predicts of a token is known only
after it. (Likelihood as a process reward without a trained head: Yuan et al., arXiv 2412.01981.)

The class of a reward model is its backbone's class with `score` added, named `<Family>ForTokenClassification`: the
name by which servers recognise it, and one that transformers' loss lookup does not take for a language model's.
Outputs of the head: correct, perception error, reasoning error.
"""

from __future__ import annotations

from dataclasses import dataclass
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
SURPRISES = 2  # of the least likely token, of the whole step


@dataclass
class StepOutput(TokenClassifierOutput):  # type: ignore[misc]
    """`logits` (B, S, 3); and `surprise` (B, S, 2), where the head reads it."""

    surprise: Tensor | None = None


@cache
def reward_class(backbone_class: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """The backbone's class with a step head. `forward` takes our batch (`step_ends` (B, S), -1 pads; `written_in`
    (B, T)) and returns a `StepOutput` of the ends of steps, and nothing over the vocabulary."""

    class StepRewardModel(backbone_class):  # type: ignore[misc]
        # Tells the Trainer to count the labelled steps of a global batch and to leave the normalising to the loss.
        accepts_loss_kwargs = True

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.reads_surprise = getattr(config, "surprise", False)
            width = config.get_text_config().hidden_size + (SURPRISES if self.reads_surprise else 0)
            # No dropout and no bias: scores are the same each time, and servers wrap such a head as it is.
            self.score = nn.Linear(width, len(OUTPUTS), bias=False)
            self.post_init()

        def forward(self, step_ends: Tensor, written_in: Tensor, **inputs: Any) -> StepOutput:
            hidden_BTD = self.model(**inputs, use_cache=False).last_hidden_state
            ends_BS1 = step_ends.clamp(min=0)[:, :, None]
            features_BSF = hidden_BTD.gather(1, ends_BS1.expand(-1, -1, hidden_BTD.shape[-1]))
            if not self.reads_surprise:
                return StepOutput(logits=self.score(features_BSF))
            read_BS2 = surprise(self.lm_head, hidden_BTD, inputs["input_ids"], written_in, step_ends.shape[1])
            features_BSF = torch.cat([features_BSF, read_BS2.log1p().to(features_BSF.dtype)], dim=-1)
            return StepOutput(logits=self.score(features_BSF), surprise=read_BS2)

    StepRewardModel.__name__ = backbone_class.__name__.replace("ForConditionalGeneration", "ForTokenClassification")
    StepRewardModel.__qualname__ = StepRewardModel.__name__
    return StepRewardModel


@torch.no_grad()
def surprise(lm_head: nn.Module, hidden_BTD: Tensor, ids_BT: Tensor, written_BT: Tensor, steps: int) -> Tensor:
    """(B, S, 2) nats: of each step's least likely token, and of all its tokens; 0 for a step that pads.

    Only ids that the policy wrote count, each as predicted from the one before. No gradient: labels of steps are not to
    teach the LM head what is likely.
    """
    written = written_BT[:, 1:] >= 0
    rows, _ = written.nonzero(as_tuple=True)
    log_p_NV = lm_head(hidden_BTD[:, :-1][written]).float().log_softmax(-1)
    nats_N = -log_p_NV.gather(1, ids_BT[:, 1:][written][:, None]).squeeze(1)
    step_N = rows * steps + written_BT[:, 1:][written]
    flat = torch.zeros(len(ids_BT) * steps, device=nats_N.device)
    worst, total = flat.scatter_reduce(0, step_N, nats_N, "amax"), flat.scatter_add(0, step_N, nats_N)
    return torch.stack([worst, total], dim=-1).view(len(ids_BT), steps, SURPRISES)


def load_reward_model(
    name: str | Path,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    new_head: bool = False,
    reads_surprise: bool = False,
) -> Checkpoint:
    """A reward model from its folder; or, with `new_head`, from a backbone's folder, with a head that starts at zero
    weights (every step equally likely right or wrong), and that reads surprise if it is to.

    ValueError where a weight is missing that should be there, or where a trained head is asked of a plain backbone.
    """
    folder = checkpoint_folder(name)
    head = load_profile(folder).head
    if not new_head and head != "step":
        raise ValueError(f"{folder} has no step head (vlprm.json says head: {head}); train one with train.prm")
    return load_checkpoint(folder, _Loader(new_head, reads_surprise), device, dtype)


def save_reward_model(checkpoint: Checkpoint, folder: Path, profile: Profile) -> None:
    """A transformers folder that also holds `vlprm.json`. The profile is written last: a folder with one is whole."""
    checkpoint.model.save_pretrained(folder)
    checkpoint.inputs.processor.save_pretrained(folder)
    profile.save(folder)


class _Loader:
    """Stands where `load_checkpoint` expects a model class, and checks what transformers only prints: missing keys."""

    def __init__(self, new_head: bool, reads_surprise: bool) -> None:
        self.new_head, self.reads_surprise = new_head, reads_surprise

    def from_pretrained(self, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
        config = AutoConfig.from_pretrained(folder)
        if self.new_head:
            config.surprise = self.reads_surprise
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
