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
from train.loop.batches import model_inputs
from train.reward.batches import NOT_INPUTS, batch_rows
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
    verdict_texts,
)
from vlprm.policy.local import LocalPolicy
from vlprm.prompts import CRITIQUE_TEMPLATES, CritiqueTemplate, critique_template
from vlprm.schema import Problem, Step
from vlprm.steps import parse_step

FIRST, LAST = critique_template("plain_critique@2"), critique_template("critique@3")
STEPS = [parse_step("[perception] row 1: red"), parse_step("[reasoning] 1 = 1"), parse_step("[answer] 1")]
RIGHT = critique_of(STEPS[0])
WRONG = critique_of(STEPS[1], "reasoning", parse_step("[reasoning] 1 + 1 = 2"))


@pytest.mark.parametrize("template", CRITIQUE_TEMPLATES.values())
@pytest.mark.parametrize("said", [RIGHT, WRONG, critique_of(STEPS[0], "perception", STEPS[0])])
def test_what_is_written_is_read(said: StepCritique, template: CritiqueTemplate) -> None:
    assert parse_critique(critique_text(said, template) + "\n", template) == said
    lines = replace(said.corrected, text=f"{said.corrected.text}\nand more") if said.corrected else None
    longer = replace(said, corrected=lines, reason="It is right?\nNo, incorrect." * template.verdict_last)
    assert parse_critique(critique_answer(longer, template), template) == longer


def test_a_critique_says_what_is_wrong() -> None:
    assert RIGHT.corrected is None
    assert WRONG.agrees_with_image
    assert not WRONG.follows
    assert critique_text(WRONG, FIRST).startswith("(wrong: [reasoning] 1 + 1 = 2)\nintent: derives;")
    assert critique_text(WRONG, LAST).endswith("logic: fails\nverdict: wrong: [reasoning] 1 + 1 = 2")


RIGHT_FIRST, WRONG_FIRST = critique_text(RIGHT, FIRST), critique_text(WRONG, FIRST)
RIGHT_LAST, WRONG_LAST = critique_text(RIGHT, LAST), critique_text(WRONG, LAST)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (FIRST, ""),
        (FIRST, "fine"),
        (FIRST, WRONG_FIRST.rsplit("\n", 1)[0]),  # no reasons
        (FIRST, RIGHT_FIRST.split("\n", 1)[1]),  # no verdict
        (FIRST, WRONG_FIRST.replace("[reasoning] 1 + 1 = 2", "")),  # nothing instead
        (FIRST, WRONG_FIRST.replace("2)", "2")),
        (FIRST, RIGHT_FIRST.replace("right", "right: [answer] 2")),
        (FIRST, RIGHT_FIRST + "\n" + RIGHT_FIRST),
        (FIRST, RIGHT_FIRST + "\nAnd so on."),
        (FIRST, RIGHT_LAST),
        (LAST, ""),
        (LAST, RIGHT_FIRST),
        (LAST, RIGHT_LAST.rsplit("\n", 1)[0]),  # it ends before its verdict
        (LAST, "The step is right.\n" + RIGHT_LAST.rsplit("right", 1)[0]),
        (LAST, WRONG_LAST.rsplit(": ", 1)[0]),  # nothing instead
        (LAST, WRONG_LAST.rsplit(": ", 1)[0] + ":"),
        (LAST, RIGHT_LAST.replace("verdict: right", "verdict: not right")),
        (LAST, RIGHT_LAST.replace("verdict: right", "verdict: correct")),
        (LAST, RIGHT_LAST.replace("verdict: right", "verdict: incorrect")),
        (LAST, RIGHT_LAST.replace("verdict: right", "verdict: rightly so")),
        (LAST, RIGHT_LAST + "\nverdict: wrong: [answer] 2"),
        (LAST, WRONG_LAST + "\nverdict: right"),
        (LAST, RIGHT_LAST + "\nAnd so on."),
    ],
)
def test_anything_else_is_no_result(template: CritiqueTemplate, text: str) -> None:
    assert parse_critique(text, template) is None
    assert not template.verdict_last or verdict_texts(text, template) is None


def test_only_the_last_verdict_counts() -> None:
    """A critique that changes its mind."""
    assert parse_critique(f"{RIGHT_LAST}\nBut no.\n{WRONG_LAST}", LAST) == replace(
        WRONG, reason=f"{RIGHT_LAST}\nBut no."
    )
    assert verdict_texts(f"{RIGHT_LAST}\nBut no.\n{WRONG_LAST}", LAST) == tuple(
        f"{RIGHT_LAST}\nBut no.\n{WRONG_LAST.rsplit('verdict: ', 1)[0]}verdict: {verdict}"
        for verdict in ("right", "wrong: ")
    )


class Critics:
    """Each sampled critic writes its own text for each step in turn; the requests are recorded."""

    dialect = "relative_1000"

    def __init__(self, *texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.asked: list[tuple[int, int]] = []

    async def sample(self, request: Request) -> list[Continuation]:
        self.asked.append((len(request.steps), request.n))
        written = [Continuation(texts[len(request.steps) - 1], 5, True) for texts in self.texts]
        self.texts = [texts for texts in self.texts if texts[len(request.steps) - 1] == RIGHT_FIRST]
        return written

    def seen_size(self, problem: Problem) -> tuple[int, int]:
        raise AssertionError


def test_a_critique_is_asked_for_step_by_step_and_ends_at_the_first_wrong_one(problems: list[Problem]) -> None:
    right, wrong = RIGHT_FIRST, WRONG_FIRST
    critics = Critics([right, right, right], [right, wrong], ["?"], [right, right, "?"])
    found = asyncio.run(sample_critiques(critics, problems[0], STEPS, FIRST, "k", 0, n=4))
    assert found == [Critique((RIGHT,) * 3), Critique((RIGHT, WRONG)), None, None]
    assert critics.asked == [(1, 4), (2, 3), (3, 2)]
    assert [c and (c.first_wrong, c.corrected) for c in found[:2]] == [(None, None), (1, WRONG.corrected)]


def test_a_step_that_is_put_right_by_itself_is_right(problems: list[Problem]) -> None:
    same = critique_text(critique_of(STEPS[0], "perception", STEPS[0]), FIRST)
    (found,) = asyncio.run(sample_critiques(Critics([same]), problems[0], STEPS[:1], FIRST, "k", 0))
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
    ("head", "template"), [("step", "plain_critique@2"), ("verdict", "plain_critique@3"), ("step", "critique@3")]
)
def test_the_lm_head_learns_the_critiques_as_they_would_be_asked_for(
    backbone: Path, criticised: list[LabelledPath], head: str, template: str
) -> None:
    """The loss of the taught ids equals what the plain model gives when it is asked about each step: after a question,
    or, with a plain template, without one."""
    checkpoint, policy = load_reward_model(backbone, new_head=head), load_policy(backbone)  # type: ignore[arg-type]
    for inputs in (checkpoint.inputs, policy.inputs):
        inputs.config = replace(inputs.config, critique_template=template)
    form = critique_template(template)
    wrong, right = criticised
    texts = [[critique_of(wrong.steps[0], "perception", STEPS[0])], [critique_of(step) for step in right.steps]]
    for path, said in zip(criticised, texts, strict=True):
        row = labelled_row([path], checkpoint.inputs, LossConfig(critique=1.0), {})
        found = checkpoint.model(**model_inputs(batch_rows([row], checkpoint.inputs), NOT_INPUTS)).taught_nats
        expected = [
            nats(policy, path.problem, path.steps[:end], form.question, critique_answer(line, form))
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
    taught = critiques_of([right], place, FIRST, LossConfig())
    assert [node for node, _ in taught] == list(right.nodes)
    assert critiques_of([replace(wrong, corrected=(None,) * len(wrong.steps))], place, FIRST, LossConfig()) == []
    unknown = (right.labels[0], replace(right.labels[1], target=None), *right.labels[2:])
    assert critiques_of([replace(right, labels=unknown)], place, FIRST, LossConfig()) == taught[:1]


@pytest.mark.parametrize("head", ["step", "verdict"])
def test_a_reward_model_is_asked_for_critiques(backbone: Path, problems: list[Problem], head: str) -> None:
    engine = LocalPolicy(load_reward_model(backbone, new_head=head))  # type: ignore[arg-type]
    assert asyncio.run(
        sample_critiques(engine, problems[0], solved(problems[0]), FIRST, "k", 0, n=2, temperature=1.0)
    ) == [
        None,
        None,
    ]
