"""Scoring within a budget of tokens: a card that runs out of memory, eviction, groups, and the event loop."""

from __future__ import annotations

import asyncio
import threading
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.conftest import executed, solved
from vlprm.model import tree_attention
from vlprm.model.loading import Checkpoint
from vlprm.policy.batcher import Batcher
from vlprm.schema import Problem, Step
from vlprm.scoring import Scored, kv_tree
from vlprm.scoring.local import LocalScorer
from vlprm.scoring.memory import tokens_that_fit
from vlprm.scoring.tree import score, score_steps
from vlprm.tasks import TASKS

PROBLEMS = [TASKS["count_grid"].problem("test", i) for i in range(8)]
STEPS = {p.id: [executed(step) for step in solved(p)] for p in PROBLEMS}


class Card:
    """A card with room for `tokens`, kept in any tree and new in a pass. `most`: the most that were in use."""

    def __init__(self, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens, self.most, self.refused = tokens, 0, 0
        self.trees: weakref.WeakSet[Any] = weakref.WeakSet()
        real = kv_tree._forward

        def forward(checkpoint: Checkpoint, parts: Any) -> None:
            used = sum(len(tree.owners) for tree in self.trees)
            used += sum(len(node.segment.ids) for part in parts for node in part.nodes)
            if used > self.tokens:
                self.refused += 1
                raise torch.OutOfMemoryError
            self.most = max(self.most, used)
            real(checkpoint, parts)

        made, trees = kv_tree.KVTree.__init__, self.trees

        def init(tree: Any, *args: Any, **kwargs: Any) -> None:
            made(tree, *args, **kwargs)
            trees.add(tree)

        monkeypatch.setattr(kv_tree.KVTree, "__init__", init)
        monkeypatch.setattr(kv_tree.KVTree, "__hash__", object.__hash__)
        monkeypatch.setattr(kv_tree, "_forward", forward)


def path_of(checkpoint: Checkpoint, problem: Problem) -> int:
    return len(checkpoint.inputs.row(problem, STEPS[problem.id]).ids)


def rewards(scored: Scored) -> list[float]:
    return [s.correct for of_solution in scored.steps for s in of_solution if s is not None]


def all_at_once(scorer: LocalScorer, depth: int | None = None, attempts: bool = True) -> list[Any]:
    async def ask() -> list[Any]:
        asked = (scorer.score(p, [STEPS[p.id][:depth]], p.id if attempts else None) for p in PROBLEMS)
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(ask())


@pytest.mark.parametrize("attempts", [True, False])
def test_eight_problems_fit_on_a_card_with_room_for_three(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, attempts: bool
) -> None:
    """Whether they are asked about again or not. The size that fits is remembered."""
    alone = [score(checkpoint, [(p, STEPS[p.id])])[0] for p in PROBLEMS]
    card = Card(3 * max(path_of(checkpoint, p) for p in PROBLEMS), monkeypatch)
    scorer = LocalScorer(checkpoint)
    for _ in range(2):
        found = all_at_once(scorer, attempts=attempts)
        assert not [one for one in found if isinstance(one, Exception)]
        for one, problem, expected in zip(found, PROBLEMS, alone, strict=True):
            assert rewards(one) == pytest.approx(expected, abs=1e-6)
            assert one.tokens in (path_of(checkpoint, problem), 0)
        refused, card.refused = card.refused, 0
    assert refused == 0, "the size that fits was forgotten"


def test_evicted_trees_are_read_again_and_cost_what_they_cost(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight problems grow step by step, with memory for two."""
    alone = [score(checkpoint, [(p, STEPS[p.id])])[0] for p in PROBLEMS]
    room = 2 * max(path_of(checkpoint, p) for p in PROBLEMS)
    card = Card(room, monkeypatch)
    scorer, costs = LocalScorer(checkpoint, room), [0] * len(PROBLEMS)
    depths = max(len(steps) for steps in STEPS.values())
    for depth in range(1, depths + 1):
        found = all_at_once(scorer, depth)
        costs = [cost + one.tokens for cost, one in zip(costs, found, strict=True)]
    assert card.refused == 0
    assert costs == [path_of(checkpoint, p) for p in PROBLEMS]
    assert [rewards(one) for one in found] == [pytest.approx(expected, abs=1e-6) for expected in alone]


def test_groups_of_trees_are_finished_one_after_another(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The most tokens in use do not grow with the number of problems, and nothing is kept for nobody."""
    room = 2 * max(path_of(checkpoint, p) for p in PROBLEMS)
    card = Card(1 << 30, monkeypatch)
    scorer = LocalScorer(checkpoint, room)
    all_at_once(scorer, attempts=False)
    assert card.most <= room
    assert sum(len(tree.owners) for tree in card.trees) == 0


def test_a_problem_that_does_not_fit_alone_stops_only_itself(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [path_of(checkpoint, p) for p in PROBLEMS]
    assert min(sizes) < max(sizes)
    Card(max(sizes) - 1, monkeypatch)
    found = all_at_once(LocalScorer(checkpoint))
    fails = [isinstance(one, torch.OutOfMemoryError) for one in found]
    assert fails == [size == max(sizes) for size in sizes]


def test_kept_tensors_own_their_storage(checkpoint: Checkpoint) -> None:
    """What stays of a problem does not hold the tensors of the pass, nor those of other problems in it."""
    scorer = LocalScorer(checkpoint)
    all_at_once(scorer)
    for tree in scorer.memory.trees.values():
        held = [tensor for layer in tree.cache.layers for tensor in layer] + list(tree.cache.states.values())
        assert held
        assert all(t.untyped_storage().nbytes() == t.nbytes for t in held)


def test_prompts_without_branches_take_no_mask(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded prompts are read by the flash kernel, which takes no mask; what follows them has one."""
    masks: list[Any] = []
    real = tree_attention.sdpa_attention_forward

    def attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
        masks.append(attention_mask)
        return real(module, query, key, value, attention_mask, **kwargs)

    monkeypatch.setattr(tree_attention, "sdpa_attention_forward", attend)
    scorer = LocalScorer(checkpoint)
    all_at_once(scorer, 1)
    assert masks
    assert all(mask is None for mask in masks)
    masks.clear()
    all_at_once(scorer, 2)
    assert all(mask is not None for mask in masks)


def test_the_budget_of_a_card_comes_from_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen2.5-VL-7B in bfloat16 (57,344 bytes of keys and values a token) on a card with 60 GB free."""
    text = SimpleNamespace(num_hidden_layers=28, num_key_value_heads=4, num_attention_heads=28, hidden_size=3584,
                           intermediate_size=18_944)  # fmt: skip
    model = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16,
                            config=SimpleNamespace(get_text_config=lambda: text))  # fmt: skip
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (50 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 28 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 18 * 10**9)
    assert 750_000 < tokens_that_fit(model) < 837_000


def test_the_event_loop_goes_on_while_a_model_works() -> None:
    """A batch is answered in a thread; questions asked in the meantime are answered together after it."""
    went_on, batches = threading.Event(), []

    def answer(questions: Any) -> list[bool]:
        batches.append(list(questions))
        return [went_on.wait(20)] * len(questions)

    async def run() -> list[bool]:
        batcher: Batcher[int, bool] = Batcher(answer, lambda questions: range(len(questions)))
        first = asyncio.create_task(batcher.ask(0))
        while not batches:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(batcher.ask(i)) for i in (1, 2)]
        await asyncio.sleep(0.01)
        went_on.set()
        return list(await asyncio.gather(first, *others))

    assert asyncio.run(run()) == [True] * 3
    assert batches == [[0], [1, 2]]


def test_a_batcher_works_in_a_second_event_loop_after_the_first_was_stopped() -> None:
    batcher: Batcher[int, int] = Batcher(list, lambda questions: range(len(questions)))

    async def stopped() -> None:
        task = asyncio.create_task(batcher.ask(1))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(stopped())
    assert asyncio.run(batcher.ask(2)) == 2


def step_of(text: str) -> Step:
    return Step("reasoning", text)


def test_scores_of_many_problems_in_any_order_are_those_of_each(checkpoint: Checkpoint) -> None:
    asked = [(p, [*STEPS[p.id][:k], step_of("1 + 1 = 3")]) for k in (1, 0) for p in PROBLEMS]
    together = score_steps(checkpoint, asked)
    for one, scores in zip(asked, together, strict=True):
        alone = score_steps(checkpoint, [one])[0]
        assert [s and s.correct for s in scores] == pytest.approx([s and s.correct for s in alone], abs=1e-6)
