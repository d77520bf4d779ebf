"""Sampled solutions with the ids that the policy sampled, and which step each id belongs to.

A trajectory keeps each turn as later turns read it. An id with a log-probability was sampled by the policy. An id
without one was not, although the policy reads it: a given prefix, a refused call's reply, text that was tokenized again
because no sampled id ends where the turn was cut. Such ids never get a gradient.
"""

from __future__ import annotations

import bisect
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from vlprm.model.inputs import InputBuilder
from vlprm.model.packing import Segment
from vlprm.schema import Problem, Step
from vlprm.steps import join_steps, separator_after

NO_STEP = -1


@dataclass(frozen=True)
class SampledTurn:
    """A turn of `steps` whole steps. `ids` end with the end of the turn only if the policy sampled it. `logprobs` has a
    log-probability for each id that the policy sampled, at the sampling temperature and without banned ids; None for an
    id that it did not sample."""

    steps: int
    ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.logprobs), "one log-probability per id"


@dataclass(frozen=True)
class Trajectory:
    """A solution that policy `version` sampled in `turns`; its first `given` steps are those of another solution, from
    which it forks. `answer` and `stop` are those of its `vlprm.schema.Solution`; a step that a limit cut short is in no
    turn's `steps`, but its ids are in `ids`.

    A critique is a single step in a single turn, after the steps that it is `about`, of which it judges the last. Its
    answer is its verdict."""

    problem_id: str
    steps: tuple[Step, ...]
    turns: tuple[SampledTurn, ...]
    answer: str | None
    stop: str
    version: int = 0
    given: int = 0
    about: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Part:
    """Ids of a path that are merged with those of other paths one by one or, if they show an image, as a whole where
    `key` is equal."""

    segment: Segment
    key: Hashable = None


@dataclass(frozen=True)
class Path:
    """A path of tokens after a prompt. Per id: the log-probability with which the policy sampled it (None: not
    sampled), and the index of its step (`NO_STEP`: an observation, or what a critique is about)."""

    parts: tuple[Part, ...]
    logprobs: tuple[float | None, ...]
    steps: tuple[int, ...]


def kept_turn(
    inputs: InputBuilder, steps: Sequence[Step], ids: tuple[int, ...], logprobs: Sequence[float | None]
) -> SampledTurn:
    """The turn that was sampled as `ids` and then cut at the end of its last step, a zoom. If no sampled id ends there,
    the last ids are those of the text, and the policy did not sample them."""
    ends = ids[-1:] == (inputs.end_of_turn,)
    kept = inputs.text.to_the_end_of(steps, ids[:-1] if ends else ids, after=None)
    if ends and kept == ids[:-1]:
        kept = ids
    same = next((k for k, (a, b) in enumerate(zip(kept, ids, strict=False)) if a != b), min(len(kept), len(ids)))
    return SampledTurn(len(steps), kept, (*logprobs[:same], *[None] * (len(kept) - same)))


def path_of(trajectory: Trajectory, problem: Problem, inputs: InputBuilder) -> Path:
    """The tokens of a trajectory after the prompt, with the observations after its turns. Those of a critique begin
    with what it is about."""
    parts = _read_first(trajectory, problem, inputs)
    size = sum(len(part.segment.ids) for part in parts)
    logprobs: list[float | None] = [None] * size
    of_step = [NO_STEP] * size
    at = 0
    for turn in trajectory.turns:
        steps = trajectory.steps[at : at + turn.steps]
        observed = bool(steps) and steps[-1].ends_turn
        # The end of a turn opens the observation after it.
        closes = observed and turn.ids[-1:] == (inputs.end_of_turn,)
        ids, known = (turn.ids[:-1], turn.logprobs[:-1]) if closes else (turn.ids, turn.logprobs)
        parts.append(Part(Segment(ids, (False,) * len(ids))))
        logprobs += known
        last = max(0, len(trajectory.steps) - 1)
        of_step += [min(at + k, last) for k in step_of_each_id(inputs.tokenizer, ids, steps)]
        at += turn.steps
        if observed:
            shown = inputs.observation(problem, steps[-1])
            parts.append(Part(shown, steps[-1].region))
            logprobs += [turn.logprobs[-1] if closes else None, *[None] * (len(shown.ids) - 1)]
            of_step += [at - 1 if closes else NO_STEP, *[NO_STEP] * (len(shown.ids) - 1)]
    return Path(tuple(parts), tuple(logprobs), tuple(of_step))


def _read_first(trajectory: Trajectory, problem: Problem, inputs: InputBuilder) -> list[Part]:
    """The steps that a critique is about, and the question about them; nothing for a solution."""
    if not trajectory.about:
        return []
    shown = inputs.asked_segments(problem, trajectory.about, inputs.config.critiques.question)
    keys = [step.region for step in trajectory.about]
    return [Part(segment, key) for segment, key in zip_longest(shown, keys)]


def step_of_each_id(tokenizer: object, ids: Sequence[int], steps: Sequence[Step]) -> list[int]:
    """The index of each id's step within its turn. An id belongs to the step whose separator it completes; the end of
    the turn, and the ids of a step that was cut short, belong to the last one."""
    starts = [0]
    for k, step in enumerate(steps[:-1]):
        text = join_steps(steps[: k + 1]) + separator_after(step)
        starts.append(_first_end(tokenizer, ids, text))
    return [bisect.bisect_right(starts, place) - 1 for place in range(len(ids))]


def _first_end(tokenizer: object, ids: Sequence[int], text: str) -> int:
    """The least number of ids whose text begins with `text`."""
    return bisect.bisect_left(
        range(len(ids) + 1),
        True,
        key=lambda n: tokenizer.decode(ids[:n]).startswith(text),  # type: ignore[attr-defined]
    )
