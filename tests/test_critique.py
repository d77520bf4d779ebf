"""Critiques: their text, what is refused, how they are taught, and how they are asked for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import solved
from train.data import RowsConfig, batch_rows, labelled_row, load_trees, model_inputs
from train.losses import LossConfig
from vlprm.backbones import load_policy
from vlprm.critique import Critique, ask, critique_of, critique_text, parse_critique
from vlprm.dataset import LabelledPath
from vlprm.engines.local import LocalEngine
from vlprm.prompts import critique_question
from vlprm.reward_model import load_reward_model
from vlprm.schema import Problem
from vlprm.steps import parse_step

QUESTION = critique_question("plain@1")
STEPS = [parse_step("[perception] row 1: red"), parse_step("[reasoning] 1 = 1"), parse_step("[answer] 1")]
RIGHT = critique_of(STEPS, None, None)
WRONG = critique_of(STEPS[:2], "reasoning", parse_step("[reasoning] 1 + 1 = 2"))


@pytest.mark.parametrize("critique", [RIGHT, WRONG, critique_of(STEPS[:1], "perception", STEPS[0])])
def test_what_is_written_is_read(critique: Critique) -> None:
    assert parse_critique(critique_text(critique) + "\n", 3) == critique


def test_a_critique_ends_at_the_first_wrong_step_and_says_what_is_wrong() -> None:
    assert RIGHT.first_wrong is None
    assert WRONG.first_wrong == 1
    assert [s.follows for s in WRONG.steps] == [True, False]
    assert WRONG.steps[1].agrees_with_image
    assert critique_text(WRONG).endswith("verdict: -\ninstead: [reasoning] 1 + 1 = 2")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fine",
        critique_text(RIGHT).rsplit("\n", 1)[0],  # a step is left out
        critique_text(WRONG).rsplit("\n", 1)[0],  # nothing instead
        critique_text(WRONG).replace("1 + 1 = 2", "").replace("[reasoning]", ""),
        critique_text(RIGHT) + "\ninstead: [answer] 2",  # of a right step
        critique_text(RIGHT).replace("2. intent", "3. intent"),
        critique_text(RIGHT).replace("verdict: +", "verdict: -", 1),  # goes on after a wrong step
        critique_text(critique_of([*STEPS, STEPS[0]], None, None)),  # a step that does not exist
        critique_text(RIGHT) + "\nAnd so on.",
    ],
)
def test_anything_else_is_no_result(text: str) -> None:
    assert parse_critique(text, 3) is None


@pytest.fixture(scope="module")
def criticised(dataset: Path) -> list[LabelledPath]:
    """A path with a correction for its first wrong step, and one that is right."""
    paths = [p for tree in load_trees(dataset, RowsConfig()) for p in tree]
    found = next(p for p in paths if p.right)
    right = replace(found, labels=tuple(replace(label, target=1.0, error_kind=None) for label in found.labels))
    labels = (replace(right.labels[0], target=0.0, error_kind="perception"), *right.labels[1:])
    return [replace(right, labels=labels, corrected=(STEPS[0], *right.corrected[1:])), right]


@pytest.mark.parametrize("head", ["step", "verdict"])
def test_the_lm_head_learns_the_critique_as_it_would_be_asked_for(
    backbone: Path, criticised: list[LabelledPath], head: str
) -> None:
    """The nats of the taught ids are those that the plain model gives them after the question."""
    checkpoint, policy = load_reward_model(backbone, new_head=head), load_policy(backbone)  # type: ignore[arg-type]
    loss = LossConfig(critique=1.0)
    texts = [
        critique_text(critique_of(criticised[0].steps[:1], "perception", STEPS[0])),
        critique_text(critique_of(criticised[1].steps, None, None)),
    ]
    for path, text in zip(criticised, texts, strict=True):
        row = labelled_row([path], checkpoint.inputs, loss, {})
        asked = policy.inputs.asked_row(path.problem, path.steps, QUESTION)
        answer = [*policy.inputs._encode(text), policy.inputs.end_of_turn]
        whole = replace(
            asked,
            ids=(*asked.ids, *answer),
            image_mask=(*asked.image_mask, *[False] * len(answer)),
            until=(len(asked.ids) + len(answer),) * (len(asked.ids) + len(answer)),
            positions=torch.cat([asked.positions, asked.positions[:, -1:] + 1 + torch.arange(len(answer))], dim=1),
        )
        log_p = policy.model(**policy.inputs.batch([whole])).logits[0, len(asked.ids) - 1 : -1].log_softmax(-1)
        expected = -log_p.gather(1, torch.tensor(answer)[:, None]).squeeze(1)
        found = checkpoint.model(**model_inputs(batch_rows([row], checkpoint.inputs))).taught_nats
        assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("head", ["step", "verdict"])
def test_a_reward_model_is_asked_for_critiques(backbone: Path, problems: list[Problem], head: str) -> None:
    engine = LocalEngine(load_reward_model(backbone, new_head=head))  # type: ignore[arg-type]
    assert asyncio.run(ask(engine, problems[0], solved(problems[0]), QUESTION, "k", 0, n=2, temperature=1.0)) == [
        None,
        None,
    ]
