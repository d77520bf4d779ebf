"""Scorers: what a search asks for the rewards of solutions, in process or served, one model or several.

    scorer = LocalScorer(load_reward_model("runs/demo/prm"))
    found = await scorer.score(problem, [solution.steps for solution in candidates])

A scorer never raises for what a policy wrote, and a failure to score is None: no result, never 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from vlprm.model.loading import Checkpoint
from vlprm.policy.batcher import Batcher
from vlprm.schema import Problem
from vlprm.scoring import Scored, Solutions
from vlprm.scoring.kv_tree import extend
from vlprm.scoring.tree import ProblemKey, ScoredTree, problem_key, score_steps
from vlprm.steps import SEPARATOR

_Request = tuple[Problem, Solutions, Hashable]
_Key = tuple[ProblemKey, Hashable]  # what is read together: of a problem, for an attempt


class LocalScorer:
    """A reward model in this process. All requests that wait are read together; of each attempt at a problem, what the
    solutions of the last request share with those of the next is read once (`vlprm.scoring.kv_tree`). With a line break as
    `separator`, a solution is read as one step, and its last score is that of the whole."""

    def __init__(self, checkpoint: Checkpoint, separator: str = SEPARATOR) -> None:
        self.checkpoint, self.separator = checkpoint, separator
        self._trees: dict[_Key, ScoredTree] = {}
        self._together = Batcher(self._read, self._batches)

    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        return await self._together.ask((problem, solutions, attempt))

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        self._trees.pop((problem_key(problem), attempt), None)

    def _read(self, requests: Sequence[_Request]) -> list[Scored]:
        inputs = self.checkpoint.inputs
        if inputs.family.cannot_pack:
            return [self._apart(problem, solutions) for problem, solutions, _ in requests]
        trees = [
            self._trees.setdefault((problem_key(problem), attempt), ScoredTree(inputs, problem, self.separator))
            for problem, _, attempt in requests
        ]
        try:
            extend(self.checkpoint, [t.growth(s, keep=True) for t, (_, s, _) in zip(trees, requests, strict=True)])
        except Exception:
            for problem, _, attempt in requests:  # what they hold is not what was read
                self.forget(problem, attempt)
            raise
        return [
            Scored([tree.scores(steps) for steps in solutions], tree.new_tokens)
            for tree, (_, solutions, _) in zip(trees, requests, strict=True)
        ]

    def _apart(self, problem: Problem, solutions: Solutions) -> Scored:
        asked = [(problem, steps) for steps in solutions]
        scores, inputs = score_steps(self.checkpoint, asked, self.separator), self.checkpoint.inputs
        read = [inputs.readable(problem, steps, self.separator) for steps in solutions]
        rows = [inputs.rows_apart(problem, steps, self.separator) for steps in read]
        return Scored(scores, [sum(len(row.ids) for row in of_solution) for of_solution in rows])

    def _batches(self, requests: Sequence[_Request]) -> list[list[int]]:
        """Two requests for one tree are not read side by side: the first may read what the second needs."""
        rounds: list[list[int]] = []
        turn: Counter[_Key] = Counter()
        for i, (problem, _, attempt) in enumerate(requests):
            key = problem_key(problem), attempt
            if turn[key] == len(rounds):
                rounds.append([])
            rounds[turn[key]].append(i)
            turn[key] += 1
        return rounds
