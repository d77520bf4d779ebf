"""Score steps with a reward model in this process.

    scorer = LocalScorer(load_reward_model("runs/demo/prm"))
    found = await scorer.score(problem, [solution.steps for solution in candidates])

A scorer never raises for what a policy wrote. A failure to score is None (no result), never 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from vlprm.model.loading import Checkpoint
from vlprm.policy.batcher import Batcher
from vlprm.schema import Problem
from vlprm.scoring import Scored, Scorer, Solutions
from vlprm.scoring.kv_tree import extend
from vlprm.scoring.tree import ProblemKey, ScoredTree, problem_key, score_apart
from vlprm.steps import one_step_per_turn, turns_of

_Request = tuple[Problem, Solutions, Hashable]
_Key = tuple[ProblemKey, Hashable]  # problem and attempt: solutions that share one tree


class LocalScorer:
    """A reward model in this process. Waiting requests are batched. Within an attempt at a problem, tokens that the
    next request shares with the last one are computed once (`vlprm.scoring.kv_tree`)."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._trees: dict[_Key, ScoredTree] = {}
        self._batcher = Batcher(self._read, self._batches)

    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        """See `Scorer.score`."""
        return await self._batcher.ask((problem, solutions, attempt))

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        """Drop the attempt's KV cache."""
        self._trees.pop((problem_key(problem), attempt), None)

    def _read(self, requests: Sequence[_Request]) -> list[Scored]:
        inputs = self.checkpoint.inputs
        if inputs.family.cannot_pack:
            return [self._apart(problem, solutions) for problem, solutions, _ in requests]
        trees = [
            self._trees.setdefault((problem_key(problem), attempt), ScoredTree(inputs, problem))
            for problem, _, attempt in requests
        ]
        try:
            extend(self.checkpoint, [t.growth(s, keep=True) for t, (_, s, _) in zip(trees, requests, strict=True)])
        except Exception:
            for problem, _, attempt in requests:  # their trees no longer match the cache
                self.forget(problem, attempt)
            raise
        return [
            Scored([tree.scores(steps) for steps in solutions], tree.new_tokens)
            for tree, (_, solutions, _) in zip(trees, requests, strict=True)
        ]

    def _apart(self, problem: Problem, solutions: Solutions) -> Scored:
        found = score_apart(self.checkpoint, [(problem, steps) for steps in solutions])
        return Scored([scores for scores, _ in found], [tokens for _, tokens in found])

    def _batches(self, requests: Sequence[_Request]) -> list[list[int]]:
        """Requests for the same tree go into different batches: the second may need what the first reads."""
        rounds: list[list[int]] = []
        turn: Counter[_Key] = Counter()
        for i, (problem, _, attempt) in enumerate(requests):
            key = problem_key(problem), attempt
            if turn[key] == len(rounds):
                rounds.append([])
            rounds[turn[key]].append(i)
            turn[key] += 1
        return rounds


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
