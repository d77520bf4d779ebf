"""Critiques: their text, what is refused, how they are trained, and how they are requested."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import solved
from tests.learnt import load_trees
from train.reward.batches import batch_rows, model_inputs
from train.reward.config import LossConfig, RowsConfig
from train.reward.critiques import critiques_of
from train.reward.data import labelled_row
from vlprm.data.dataset import LabelledPath
from vlprm.model.loading import Checkpoint, load_policy
from vlprm.model.reward_loading import load_reward_model
from vlprm.policy import Continuation, Request
from vlprm.policy.critique import (
    Critique,
    StepCritique,
    critique_answer,
    critique_of,
    critique_text,
    parse_critique,
    sample_critiques,
)
from vlprm.policy.local import LocalPolicy
from vlprm.prompts import critique_question
from vlprm.schema import Problem, Step
from vlprm.steps import parse_step

QUESTION = critique_question("plain@1")
STEPS = [parse_step("[perception] row 1: red"), parse_step("[reasoning] 1 = 1"), parse_step("[answer] 1")]
RIGHT = critique_of(STEPS[0])
WRONG = critique_of(STEPS[1], "reasoning", parse_step("[reasoning] 1 + 1 = 2"))


@pytest.mark.parametrize("said", [RIGHT, WRONG, critique_of(STEPS[0], "perception", STEPS[0])])
def test_what_is_written_is_read(said: StepCritique) -> None:
    assert parse_critique(critique_text(said) + "\n") == said


def test_a_critique_says_what_is_wrong() -> None:
    assert RIGHT.corrected is None
    assert WRONG.agrees_with_image
    assert not WRONG.follows
    assert critique_text(WRONG).startswith("(wrong: [reasoning] 1 + 1 = 2)\nintent: derives;")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fine",
        critique_text(WRONG).rsplit("\n", 1)[0],  # no reasons
        critique_text(RIGHT).split("\n", 1)[1],  # no verdict
        critique_text(WRONG).replace("[reasoning] 1 + 1 = 2", ""),  # nothing instead
        critique_text(WRONG).replace("2)", "2"),
        critique_text(RIGHT).replace("right", "right: [answer] 2"),
        critique_text(RIGHT) + "\n" + critique_text(RIGHT),
        critique_text(RIGHT) + "\nAnd so on.",
    ],
)
def test_anything_else_is_no_result(text: str) -> None:
    assert parse_critique(text) is None


class Critics:
    """Each sampled critic writes its own text for each step in turn; the requests are recorded."""

    dialect = "relative_1000"

    def __init__(self, *texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.asked: list[tuple[int, int]] = []

    async def sample(self, request: Request) -> list[Continuation]:
        self.asked.append((len(request.steps), request.n))
        written = [Continuation(texts[len(request.steps) - 1], 5, True) for texts in self.texts]
        self.texts = [texts for texts in self.texts if texts[len(request.steps) - 1] == critique_text(RIGHT)]
        return written

    def seen_size(self, problem: Problem) -> tuple[int, int]:
        raise AssertionError


def test_a_critique_is_asked_for_step_by_step_and_ends_at_the_first_wrong_one(problems: list[Problem]) -> None:
    right, wrong = critique_text(RIGHT), critique_text(WRONG)
    critics = Critics([right, right, right], [right, wrong], ["?"], [right, right, "?"])
    found = asyncio.run(sample_critiques(critics, problems[0], STEPS, QUESTION, "k", 0, n=4))
    assert found == [Critique((RIGHT,) * 3), Critique((RIGHT, WRONG)), None, None]
    assert critics.asked == [(1, 4), (2, 3), (3, 2)]
    assert [c and (c.first_wrong, c.corrected) for c in found[:2]] == [(None, None), (1, WRONG.corrected)]


def test_a_step_that_is_put_right_by_itself_is_right(problems: list[Problem]) -> None:
    same = critique_text(critique_of(STEPS[0], "perception", STEPS[0]))
    (found,) = asyncio.run(sample_critiques(Critics([same]), problems[0], STEPS[:1], QUESTION, "k", 0))
    assert found == Critique((critique_of(STEPS[0]),))


@pytest.fixture(scope="module")
def criticised(dataset: Path) -> list[LabelledPath]:
    """A path with a correction for its first wrong step, and a path with all steps right."""
    paths = [p for tree in load_trees(dataset, RowsConfig()) for p in tree]
    found = next(p for p in paths if p.right)
    right = replace(found, labels=tuple(replace(label, target=1.0, error_kind=None) for label in found.labels))
    labels = (replace(right.labels[0], target=0.0, error_kind="perception"), *right.labels[1:])
    return [replace(right, labels=labels, corrected=(STEPS[0], *right.corrected[1:])), right]


@pytest.mark.parametrize(
    ("head", "template"), [("step", "plain@1"), ("verdict", "plain@1"), ("step", "tagged_steps@1")]
)
def test_the_lm_head_learns_the_critiques_as_they_would_be_asked_for(
    backbone: Path, criticised: list[LabelledPath], head: str, template: str
) -> None:
    """The loss of the taught ids equals what the plain model gives when it is asked about each step: after a question,
    or, with the built-in models' template, without one."""
    checkpoint, policy = load_reward_model(backbone, new_head=head), load_policy(backbone)  # type: ignore[arg-type]
    for inputs in (checkpoint.inputs, policy.inputs):
        inputs.config = replace(inputs.config, prompt_template=template)
    question = critique_question(template)
    wrong, right = criticised
    texts = [[critique_of(wrong.steps[0], "perception", STEPS[0])], [critique_of(step) for step in right.steps]]
    for path, said in zip(criticised, texts, strict=True):
        row = labelled_row([path], checkpoint.inputs, LossConfig(critique=1.0), {})
        found = checkpoint.model(**model_inputs(batch_rows([row], checkpoint.inputs))).taught_nats
        expected = [
            nats(policy, path.problem, path.steps[:end], question, critique_answer(line, question))
            for end, line in enumerate(said, 1)
        ]
        assert found.sum().item() == pytest.approx(sum(expected), rel=1e-4)


def nats(policy: Checkpoint, problem: Problem, steps: Sequence[Step], question: str, text: str) -> float:
    """Negative log-likelihood, under the plain model, of an answer to the question after these steps."""
    asked = policy.inputs.asked_row(problem, steps, question)
    answer = [*policy.inputs.text.encode(text), policy.inputs.end_of_turn]
    size = len(asked.ids) + len(answer)
    whole = replace(
        asked,
        ids=(*asked.ids, *answer),
        image_mask=(*asked.image_mask, *[False] * len(answer)),
        until=(size,) * size,
        positions=torch.cat([asked.positions, asked.positions[:, -1:] + 1 + torch.arange(len(answer))], dim=1),
    )
    log_p = policy.model(**policy.inputs.batch([whole])).logits[0, len(asked.ids) - 1 : -1].log_softmax(-1)
    return -log_p.gather(1, torch.tensor(answer)[:, None]).sum().item()


def test_no_critique_is_taught_of_what_is_not_known(criticised: list[LabelledPath]) -> None:
    wrong, right = criticised
    place = {node: node for node in right.nodes}
    taught = critiques_of([right], place, QUESTION)
    assert [node for node, _ in taught] == list(right.nodes)
    assert critiques_of([replace(wrong, corrected=(None,) * len(wrong.steps))], place, QUESTION) == []
    unknown = (right.labels[0], replace(right.labels[1], target=None), *right.labels[2:])
    assert critiques_of([replace(right, labels=unknown)], place, QUESTION) == taught[:1]


@pytest.mark.parametrize("head", ["step", "verdict"])
def test_a_reward_model_is_asked_for_critiques(backbone: Path, problems: list[Problem], head: str) -> None:
    engine = LocalPolicy(load_reward_model(backbone, new_head=head))  # type: ignore[arg-type]
    assert asyncio.run(
        sample_critiques(engine, problems[0], solved(problems[0]), QUESTION, "k", 0, n=2, temperature=1.0)
    ) == [
        None,
        None,
    ]
