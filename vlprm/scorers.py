"""Scorers: what a search asks for the rewards of solutions, in process or served, one model or several.

    scorer = LocalScorer(load_reward_model("runs/demo/prm"))
    found = await scorer.score(problem, [solution.steps for solution in candidates])

A scorer never raises for what a policy wrote, and a failure to score is None: no result, never 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from jsonargparse.typing import PositiveInt

from vlprm.backbones import Checkpoint, checkpoint_folder, placement, profile_of
from vlprm.critique import ask
from vlprm.engines import Engine, all_answers
from vlprm.engines.choose import ServerConfig, open_engine, open_scores
from vlprm.engines.counted import Counted
from vlprm.engines.local import LocalEngine
from vlprm.engines.together import Together
from vlprm.images import content_hash
from vlprm.prompts import critique_question
from vlprm.reading import read
from vlprm.reward_model import StepScore, load_reward_model
from vlprm.schema import Aggregation, Problem, Step
from vlprm.scoring import ScoredTree, Shown, score_steps, shown
from vlprm.steps import SEPARATOR, join_steps

Solutions = Sequence[Sequence[Step]]
_Request = tuple[Problem, Solutions, Hashable]
_Key = tuple[Shown, Hashable]  # what is read together: of a problem, for an attempt


@dataclass(frozen=True)
class Scored:
    """A list of scores a solution, one a step (None: no result), and how many tokens were read, and written, for each
    solution, beside those for the solutions before it."""

    steps: list[list[StepScore | None]]
    read: list[int]

    @property
    def tokens(self) -> int:
        return sum(self.read)


class Scorer(Protocol):
    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        """The scores of solutions, or of their beginnings. What was read for an attempt is not read again for it; of
        what others had read it has nothing, so that what it costs does not depend on them."""

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        """No more solutions of this problem will be asked about in this attempt."""


@dataclass(frozen=True)
class ScorerConfig:
    """What is asked of reward models.

    Args:
        kind: steps (a reward for each step), whole (a solution is read as one step, and rewarded at its end), or
            critiques (the share of sampled critiques that call a step right, by a model that has learnt to write them).
        critiques: that are sampled of each solution.
    """

    kind: Literal["steps", "whole", "critiques"] = "steps"
    critiques: PositiveInt = 4

    def check(self, aggregation: Aggregation) -> None:
        """ValueError where a solution's reward would be made of rewards that are none of its own."""
        if self.kind == "whole" and aggregation != "last":
            raise ValueError("scorer.kind whole rewards a solution at its end; give search.aggregation last")


@asynccontextmanager
async def open_scorer(
    reward_model: str | Path | Sequence[str | Path],
    device: str,
    dtype: str,
    server: ServerConfig,
    scorer: ScorerConfig = ScorerConfig(),
) -> AsyncIterator[Scorer]:
    """The reward model of this folder: in this process, or where it is served. Of several folders, the ensemble.
    ValueError where a server is asked for what it cannot give."""
    folders = [reward_model] if isinstance(reward_model, str | Path) else reward_model
    if server.base_urls and (len(folders) > 1 or scorer.kind == "whole"):
        raise ValueError("servers serve one reward model, and score its steps; score this in this process")
    async with AsyncExitStack() as opened:
        scorers = [
            await opened.enter_async_context(_opened(folder, device, dtype, server, scorer)) for folder in folders
        ]
        yield scorers[0] if len(scorers) == 1 else Ensemble(scorers)


@asynccontextmanager
async def _opened(
    folder: str | Path, device: str, dtype: str, server: ServerConfig, scorer: ScorerConfig
) -> AsyncIterator[Scorer]:
    if scorer.kind == "critiques":
        template = profile_of(checkpoint_folder(folder)).prompt_template
        if server.base_urls:
            async with open_engine(str(folder), device, dtype, server) as engine:
                yield CritiqueScorer(engine, template, scorer.critiques)
            return
        critic = LocalEngine(load_reward_model(folder, *placement(device, dtype)))
        yield CritiqueScorer(critic, template, scorer.critiques)
    elif server.base_urls:
        async with open_scores(folder, server) as scores:
            yield scores
    else:
        separator = "\n" if scorer.kind == "whole" else SEPARATOR
        yield LocalScorer(load_reward_model(folder, *placement(device, dtype)), separator)


class LocalScorer:
    """A reward model in this process. All requests that wait are read together; of each attempt at a problem, what the
    solutions of the last request share with those of the next is read once (`vlprm.reading`). With a line break as
    `separator`, a solution is read as one step, and its last score is that of the whole."""

    def __init__(self, checkpoint: Checkpoint, separator: str = SEPARATOR) -> None:
        self.checkpoint, self.separator = checkpoint, separator
        self._trees: dict[_Key, ScoredTree] = {}
        self._together = Together(self._read, self._batches)

    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        return await self._together.ask((problem, solutions, attempt))

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        self._trees.pop((shown(problem), attempt), None)

    def _read(self, requests: Sequence[_Request]) -> list[Scored]:
        inputs = self.checkpoint.inputs
        if inputs.family.cannot_pack:
            return [self._apart(problem, solutions) for problem, solutions, _ in requests]
        trees = [
            self._trees.setdefault((shown(problem), attempt), ScoredTree(inputs, problem, self.separator))
            for problem, _, attempt in requests
        ]
        try:
            read(self.checkpoint, [t.growth(s, keep=True) for t, (_, s, _) in zip(trees, requests, strict=True)])
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
            key = shown(problem), attempt
            if turn[key] == len(rounds):
                rounds.append([])
            rounds[turn[key]].append(i)
            turn[key] += 1
        return rounds


class Ensemble:
    """Several scorers; a step's score is the mean over those that have one."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self.scorers = scorers

    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        found = await all_answers(scorer.score(problem, solutions, attempt) for scorer in self.scorers)
        steps = [
            [_mean(of_step) for of_step in zip(*of_solution, strict=True)]
            for of_solution in zip(*(scored.steps for scored in found), strict=True)
        ]
        return Scored(steps, [sum(of_solution) for of_solution in zip(*(s.read for s in found), strict=True)])

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        for scorer in self.scorers:
            scorer.forget(problem, attempt)


class CritiqueScorer:
    """The mean of `samples` sampled critiques by a model that writes them (ThinkPRM's parallel scaling, arXiv
    2504.16828): the share that calls a step right. A critique ends at the first step that it calls wrong; those after
    it follow from an error, and count as wrong. Critiques that cannot be read count for nothing."""

    def __init__(self, engine: Engine, prompt_template: str, samples: int, temperature: float = 0.7, seed: int = 0):
        self.engine, self.samples, self.temperature, self.seed = engine, samples, temperature, seed
        self.question = critique_question(prompt_template)

    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        found = await all_answers(self._shares(problem, steps) for steps in solutions)
        return Scored([shares for shares, _ in found], [tokens for _, tokens in found])

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        pass

    async def _shares(self, problem: Problem, steps: Sequence[Step]) -> tuple[list[StepScore | None], int]:
        if not steps:
            return [], 0
        engine = Counted(self.engine)
        key = f"{problem.id}/critique/{content_hash(join_steps(steps).encode())}"
        asked = engine, problem, steps, self.question, key, self.seed, self.samples, self.temperature
        read = [critique for critique in await ask(*asked) if critique is not None]
        if not read:
            return [None] * len(steps), engine.tokens
        right = [[c.first_wrong is None or k < c.first_wrong for c in read] for k in range(len(steps))]
        return [StepScore(sum(of_step) / len(read), None, None) for of_step in right], engine.tokens


def _mean(scores: Sequence[StepScore | None]) -> StepScore | None:
    known = [score for score in scores if score is not None]
    if not known:
        return None
    kinds = [(s.perception, s.reasoning) for s in known if s.perception is not None and s.reasoning is not None]
    count = len(known)
    correct = sum(s.correct for s in known) / count
    if len(kinds) < count:
        return StepScore(correct, None, None)
    return StepScore(correct, sum(p for p, _ in kinds) / count, sum(r for _, r in kinds) / count)
