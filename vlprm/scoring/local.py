"""Score steps with a reward model in this process.

    scorer = LocalScorer(load_reward_model("runs/demo/prm"))
    found = await scorer.score(problem, [solution.steps for solution in candidates])

A scorer never raises for what a policy wrote. A failure to score is None (no result), never 0.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from vlprm.model.loading import Checkpoint
from vlprm.policy.batcher import Batcher
from vlprm.schema import Problem
from vlprm.scoring import Scored, Scorer, Solutions
from vlprm.scoring.kv_tree import CHUNK, MAX_TOKENS
from vlprm.scoring.memory import TreeMemory
from vlprm.scoring.scored_tree import ScoredTree
from vlprm.scoring.tree import problem_key, score_apart
from vlprm.steps import one_step_per_turn, turns_of

_Request = tuple[Problem, Solutions, Hashable]


class LocalScorer:
    """A reward model in this process. Waiting requests are batched. Within an attempt at a problem, tokens that the
    next request shares with the last one are computed once (`vlprm.scoring.kv_tree`), as far as `memory_tokens` allows
    (`vlprm.scoring.memory`; None: as many tokens as fit). A request without an attempt keeps nothing."""

    def __init__(self, checkpoint: Checkpoint, memory_tokens: int | None = None) -> None:
        self.checkpoint = checkpoint
        self.memory = TreeMemory(checkpoint, memory_tokens)
        self._batcher = Batcher(self._read, self._first_batch)

    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        """See `Scorer.score`."""
        return await self._batcher.ask((problem, solutions, attempt))

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        """Drop the attempt's KV cache."""
        self.memory.trees.pop((problem_key(problem), attempt), None)

    def _read(self, requests: Sequence[_Request]) -> list[Scored]:
        inputs = self.checkpoint.inputs
        if inputs.family.cannot_pack:
            return [self._apart(problem, solutions) for problem, solutions, _ in requests]
        trees = [self._tree(problem, attempt) for problem, _, attempt in requests]
        try:
            for tree, (_, solutions, _) in zip(trees, requests, strict=True):
                tree.ask(solutions)
            for keep in (True, False):
                asked = zip(trees, requests, strict=True)
                self.memory.read([tree for tree, (_, _, attempt) in asked if (attempt is not None) == keep], keep)
        except Exception:
            for problem, _, attempt in requests:  # their trees no longer match the cache
                self.forget(problem, attempt)
            raise
        return [
            Scored([tree.scores(steps) for steps in solutions], tree.new_tokens)
            for tree, (_, solutions, _) in zip(trees, requests, strict=True)
        ]

    def _tree(self, problem: Problem, attempt: Hashable) -> ScoredTree:
        """The attempt's tree, as the one that was used last."""
        key, made = (problem_key(problem), attempt), ScoredTree(self.checkpoint.inputs, problem)
        if attempt is None:
            return made
        self.memory.trees[key] = tree = self.memory.trees.pop(key, made)
        return tree

    def _apart(self, problem: Problem, solutions: Solutions) -> Scored:
        found = score_apart(self.checkpoint, [(problem, steps) for steps in solutions])
        return Scored([scores for scores, _ in found], [tokens for _, tokens in found])

    def _first_batch(self, requests: Sequence[_Request]) -> list[int]:
        """The first requests for as many trees as fill a forward pass, so that the first answers do not wait for the
        last. A second request for a tree may need what the first reads, so it waits."""
        first: dict[Hashable, int] = {}
        for i, (problem, _, attempt) in enumerate(requests):
            first.setdefault(i if attempt is None else (problem_key(problem), attempt), i)
        return list(first.values())[: MAX_TOKENS // CHUNK]


class WholeSolutionScorer:
    """Scores each solution as a single step: every step of a turn gets the score at the turn's end."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        """See `Scorer.score`."""
        found = await self.scorer.score(problem, [one_step_per_turn(steps) for steps in solutions], attempt)
        return Scored(
            [
                [score for turn, score in zip(turns_of(steps), scores, strict=True) for _ in turn]
                for steps, scores in zip(solutions, found.steps, strict=True)
            ],
            found.read,
        )

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        """Drop the attempt's KV cache."""
        self.scorer.forget(problem, attempt)
