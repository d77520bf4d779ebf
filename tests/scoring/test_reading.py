"""Scoring trees with a KV cache: every way to read them gives the scores of the single solutions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import executed, solved
from tests.tiny_backbones import BACKBONES, OUTSIDE
from vlprm.model.families import FAMILIES
from vlprm.model.loading import Checkpoint
from vlprm.model.reward_loading import load_reward_model
from vlprm.schema import Problem, Step
from vlprm.scoring import kv_tree as reading
from vlprm.scoring import tree as scoring
from vlprm.scoring.local import LocalScorer
from vlprm.scoring.memory import TreeMemory
from vlprm.scoring.scored_tree import ScoredTree
from vlprm.scoring.tree import score_steps
from vlprm.steps import parse_step
from vlprm.tasks import TASKS

Folders = Callable[[str], Path]
Solutions = list[tuple[Problem, list[Step]]]
packing_families = pytest.mark.parametrize(
    "family", [*OUTSIDE, *(name for name in BACKBONES if not FAMILIES[name].cannot_pack)]
)
heads = pytest.mark.parametrize(
    "head", [{"new_head": "step"}, {"new_head": "step", "reads_surprise": True}, {"new_head": "verdict"},
             {"new_head": "implicit"}, {"new_head": "step", "reads_lookback": True}],
    ids=["step", "surprise", "verdict", "implicit", "lookback"],
)  # fmt: skip


def candidates() -> Solutions:
    """Three problems with uneven branches, a zoom in a branch, a solution that is a prefix of another, and a repeat."""
    found: Solutions = []
    for name in ("count_grid", "fine_print", "chart"):
        problem = TASKS[name].problem("train", 3)
        steps = [executed(step) if step.kind == "zoom" else step for step in solved(problem)]
        other = parse_step("[reasoning] 1 + 1 = 3")
        found += [(problem, s) for s in (steps, [*steps[:1], other, *steps[1:2]], [other], steps[:2])]
    return [*found, found[0]]


def apart(checkpoint: Checkpoint, asked: Solutions) -> list[list[float]]:
    """The scores of each solution in a row of its own, without any cache."""
    return [[s.correct for s in scoring.score_apart(checkpoint, [one])[0][0]] for one in asked]


def close(a: list[Any], b: list[Any]) -> bool:
    flat = lambda scores: torch.tensor([value for row in scores for value in row])  # noqa: E731
    return [len(row) for row in a] == [len(row) for row in b] and torch.allclose(flat(a), flat(b), atol=1e-5)


def len_of(growth: reading.Extension) -> int:
    return sum(len(node.segment.ids) for node in growth.nodes)


def model_of(folder: Path, **head: Any) -> Checkpoint:
    checkpoint = load_reward_model(folder, **head)
    if head["new_head"] == "step":
        torch.manual_seed(0)
        torch.nn.init.normal_(checkpoint.model.score.weight, std=0.2)
    if head["new_head"] == "implicit":
        torch.manual_seed(0)
        with torch.no_grad():  # its reference stays
            for weight in checkpoint.model.model.parameters():
                weight += 0.01 * torch.randn_like(weight)
    return checkpoint


@packing_families
@heads
def test_all_candidates_at_once_have_the_scores_of_each_alone(
    tiny_backbone: Folders, family: str, head: dict[str, Any]
) -> None:
    checkpoint, asked = model_of(tiny_backbone(family), **head), candidates()
    together = [[s.correct for s in scores] for scores in score_steps(checkpoint, asked)]
    assert close(together, apart(checkpoint, asked))
    assert len({round(value, 4) for row in together for value in row}) > 5


@heads
def test_parts_of_any_length_give_the_same(
    tiny_backbone: Folders, head: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a part is a step: the ancestors of later steps stay in the cache, and the rest does not interfere."""
    checkpoint, asked = model_of(tiny_backbone("qwen2_5_vl"), **head), candidates()
    monkeypatch.setattr(reading, "CHUNK", 1)
    assert close([[s.correct for s in scores] for scores in score_steps(checkpoint, asked)], apart(checkpoint, asked))


@heads
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_tree_that_grows_step_by_step_reads_each_token_once(
    tiny_backbone: Folders, family: str, head: dict[str, Any]
) -> None:
    """Two problems are read together, and a branch of one is dropped on the way."""
    checkpoint, asked = model_of(tiny_backbone(family), **head), candidates()
    shortest = min(len(asked[0][1]), len(asked[4][1]))
    problems = [(problem, steps[:shortest]) for problem, steps in (asked[0], asked[4])]
    trees = [ScoredTree(checkpoint.inputs, problem) for problem, _ in problems]
    wrong, memory, read = parse_step("[reasoning] 1 + 1 = 3"), TreeMemory(checkpoint), [0, 0]
    for depth in range(1, shortest + 1):
        beams = [[steps[:depth], [*steps[: depth - 1], wrong]] for _, steps in problems]
        for tree, beam in zip(trees, beams, strict=True):
            tree.ask(beam)
        read = [n + len_of(tree.growth(keep=True)) for n, tree in zip(read, trees, strict=True)]
        memory.read(trees, keep=True)
        for tree, beam, (problem, _) in zip(trees, beams, problems, strict=True):
            grown = [[s.correct for s in tree.scores(steps)] for steps in beam]
            assert close(grown, apart(checkpoint, [(problem, steps) for steps in beam]))
    for tree, tokens, (problem, steps) in zip(trees, read, problems, strict=True):
        if head["new_head"] == "step":
            path = checkpoint.inputs.row(problem, steps)
            side = sum(len(checkpoint.inputs.step(problem, wrong, steps[k - 1] if k else None).ids)
                       for k in range(len(steps)))  # fmt: skip
            assert tokens == len(path.ids) + side
            assert tree.cache.kept < tokens  # what was given up is forgotten


def test_five_hundred_steps_have_the_scores_that_they_have_alone(tiny_backbone: Folders) -> None:
    checkpoint, (problem, _) = model_of(tiny_backbone("qwen3_vl"), new_head="step"), candidates()[0]
    steps = [parse_step(f"[reasoning] {k}") for k in range(500)]
    checkpoint.inputs.context = 1 << 14
    (scores,) = score_steps(checkpoint, [(problem, steps)])
    assert len(scores) == 500
    assert close([[s.correct for s in scores]], apart(checkpoint, [(problem, steps)]))


def test_a_step_that_was_forgotten_is_read_again(tiny_backbone: Folders) -> None:
    checkpoint = model_of(tiny_backbone("qwen3_vl"), new_head="step")
    problem, steps = candidates()[0]
    tree, memory = ScoredTree(checkpoint.inputs, problem), TreeMemory(checkpoint)
    other = [parse_step("[reasoning] 1 + 1 = 3")]
    for solution in (steps[:2], other, steps):
        tree.ask([solution])
        memory.read([tree], keep=True)
    assert close([[s.correct for s in tree.scores(steps)]], apart(checkpoint, [(problem, steps)]))


@pytest.mark.parametrize("head", ["step", "verdict"])
@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3"])
def test_what_cannot_be_read_has_no_score(tiny_backbone: Folders, family: str, head: str) -> None:
    """An empty step, a step beyond the model's context, and the steps after them have no score, never 0. Only tokens
    that were read are counted."""
    checkpoint = model_of(tiny_backbone(family), new_head=head)
    inputs, (problem, steps) = checkpoint.inputs, candidates()[0]
    asked = len(inputs.verdict_question().ids) if head == "verdict" else 0
    lengths = [sum(len(row.ids) for row in inputs.rows_apart(problem, steps[:k])) for k in range(3)]

    def scored(*solutions: list[Step]) -> list[list[bool]]:
        found = score_steps(checkpoint, [(problem, s) for s in solutions])
        known = asyncio.run(LocalScorer(checkpoint).score(problem, solutions))
        assert [[s is None for s in of] for of in known.steps] == [[s is None for s in of] for of in found]
        if inputs.family.cannot_pack:
            read = [sum(s is not None for s in of) for of in found]
            assert known.tokens == sum(lengths[k] for k in read)
        return [[s is not None for s in of] for of in found]

    assert scored([steps[0], parse_step(" "), steps[1]], [Step("other", "")]) == [[True, False, False], [False]]
    assert scored([], steps[:1]) == [[], [True]]
    inputs.context = len(inputs.begun_row(problem, steps[:2]).ids) - len(inputs.text.lead(steps[1])) + asked
    assert scored(steps) == [[True, True, *[False] * (len(steps) - 2)]]
    inputs.context -= 1
    assert scored(steps) == [[True, *[False] * (len(steps) - 1)]]
    inputs.context = 3
    assert scored(steps[:1]) == [[False]]
    assert asyncio.run(LocalScorer(checkpoint).score(problem, [steps])).tokens == 0


@pytest.mark.parametrize("family", [name for name in BACKBONES if FAMILIES[name].cannot_pack])
def test_where_no_row_branches_a_verdict_is_that_of_its_beginning(tiny_backbone: Folders, family: str) -> None:
    checkpoint, (problem, steps) = model_of(tiny_backbone(family), new_head="verdict"), candidates()[0]
    whole = [s.correct for s in score_steps(checkpoint, [(problem, steps[:3])])[0]]
    inputs = checkpoint.inputs
    for k, got in enumerate(whole):
        row = inputs.asked_row(problem, steps[: k + 1], inputs.config.verdict_template)
        assert min(row.until) == len(row.ids)
        assert got == pytest.approx(score_steps(checkpoint, [(problem, steps[: k + 1])])[0][-1].correct, abs=1e-5)
