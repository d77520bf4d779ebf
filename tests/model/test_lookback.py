"""Lookback ratios: the attention that text layers give to images while a step is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.conftest import executed, solved
from vlprm.model.attention import Attention
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.model.reward_model import step_means
from vlprm.model.tree_attention import looking_back
from vlprm.scoring.kv_tree import KVTree
from vlprm.scoring.served import ServedScorer
from vlprm.serving.config import ServerConfig
from vlprm.tasks import TASKS


def test_ratios_are_those_of_the_attention_weights(tiny_backbone: Any) -> None:
    """The weights of transformers' eager attention, summed over the tokens of the question's image and of a crop."""
    folder = tiny_backbone("qwen2_5_vl")
    checkpoint = load_reward_model(folder, new_head="step", reads_lookback=True)
    problem = TASKS["fine_print"].problem("train", 3)
    steps = [executed(step) for step in solved(problem)]
    row = checkpoint.inputs.row(problem, steps)
    batch = checkpoint.inputs.batch([row])
    plain = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()
    weights = plain(**batch, output_attentions=True).attentions
    shown = torch.tensor(row.image_mask)
    with torch.no_grad(), looking_back(shown[None]) as looked:
        checkpoint.model.model(**batch)
    assert len(looked.shares) == len(weights) == plain.config.get_text_config().num_hidden_layers
    written = torch.tensor(row.written_in)
    means = step_means(torch.stack(looked.shares, -1), written[None], len(steps))[0]
    for layer, of_layer in enumerate(weights):
        shares = of_layer[0, :, :, shown].sum(-1).mean(0)
        expected = [shares[written == step].mean().item() for step in range(len(steps))]
        assert means[:, layer].tolist() == pytest.approx(expected, abs=1e-6)
    assert means.min() > 0
    assert means.max() < 1


def test_kept_tokens_stay_images_when_others_are_dropped() -> None:
    tree = KVTree([-1, 0, 0], [2, 2, 1], [2, 4, 3], {node: torch.zeros(1) for node in range(3)})
    tree.owners = torch.tensor([0, 0, 1, 1, 2])
    tree.shown = torch.tensor([False, True, False, False, True])
    tree.keep([2])
    assert tree.owners.tolist() == [0, 0, 2]
    assert tree.shown.tolist() == [False, True, True]


def test_the_head_reads_them_and_is_kept(backbone: Path, tmp_path: Path) -> None:
    made = load_reward_model(backbone, new_head="step", reads_surprise=True, reads_lookback=True)
    text = made.model.config.get_text_config()
    assert made.model.score.in_features == text.hidden_size + 2 + text.num_hidden_layers
    save_reward_model(made, tmp_path / "prm", made.config)
    assert load_reward_model(tmp_path / "prm").model.reads_lookback
    with pytest.raises(ValueError, match=r"the trained head of .*prm has lookback: true; set the same"):
        load_reward_model(tmp_path / "prm", new_head="step", reads_surprise=True, reads_lookback=False)
    assert load_reward_model(tmp_path / "prm", new_head="step", reads_surprise=True).model.reads_lookback
    with pytest.raises(ValueError, match="has a head that reads surprise, which servers do not compute; score it in"):
        ServedScorer(tmp_path / "prm", ServerConfig(("http://localhost:1/v1",), "prm"))


def test_where_they_cannot_be_read_they_are_refused(tiny_backbone: Any) -> None:
    for family in ("gemma3", "qwen3_5"):
        with pytest.raises(ValueError, match=r"read from layers that attend to all tokens: .*; leave it out"):
            load_reward_model(tiny_backbone(family), new_head="step", reads_lookback=True)
    with pytest.raises(ValueError, match=r"flash-attn gives no lookback; set attention.text: tree"):
        load_reward_model(
            tiny_backbone("qwen3_vl"), new_head="step", reads_lookback=True, attention=Attention(text="flash")
        )
