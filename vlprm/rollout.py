"""Sample solutions to the end: continue, cut the turn at its first zoom, execute it, show the crop, continue."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from vlprm.actions import execute_zoom
from vlprm.answers import choices_of, extract_answer
from vlprm.engines import Continuation, Engine, Request, all_answers
from vlprm.images import open_image
from vlprm.schema import Problem, Solution, Step
from vlprm.steps import split_steps

MAX_ZOOMS = 4  # of a solution
OPEN = "open"  # the stop of a solution that may go on


async def rollouts(engine: Engine, request: Request) -> list[Solution]:
    """`request.n` complete solutions that open with `request.steps`. Never raises for what a policy writes:
    a solution without an answer has a `stop` that says why, and counts as no result."""
    first = await engine.sample(request)
    return await all_answers(_finish(engine, request, i, continuation) for i, continuation in enumerate(first))


async def next_steps(engine: Engine, request: Request, so_far: Solution) -> list[Solution]:
    """`request.n` times the solution `so_far` with one more step; its stop is `open` where more may follow. A zoom is
    executed, and an answer ends the solution. Never raises for what a policy writes."""
    asked = dataclasses.replace(request, steps=so_far.steps, one_step=True)
    return [_advanced(engine, request.problem, so_far, c) for c in await engine.sample(asked)]


def _advanced(engine: Engine, problem: Problem, so_far: Solution, continuation: Continuation) -> Solution:
    if continuation.failure:
        return dataclasses.replace(so_far, stop=continuation.failure)
    written = split_steps(continuation.text)[:1]
    steps, tokens = (*so_far.steps, *written), so_far.tokens + continuation.tokens
    kind = written[0].kind if written else None
    if kind == "zoom":
        zoomed = _zoom(engine, problem, steps)
        if isinstance(zoomed, str):
            return Solution(problem.id, steps, None, zoomed, tokens)
        return Solution(problem.id, (*so_far.steps, zoomed), None, OPEN, tokens)
    if continuation.ended or kind == "answer":
        return _closed(problem, steps, tokens)
    return Solution(problem.id, steps, None, OPEN if continuation.goes_on else "length", tokens)


async def _finish(engine: Engine, request: Request, index: int, continuation: Continuation) -> Solution:
    steps, tokens, turn = request.steps, 0, 0
    while True:
        if continuation.failure:
            return Solution(request.problem.id, steps, None, continuation.failure, tokens)
        tokens += continuation.tokens
        whole = split_steps(continuation.text)
        written = _up_to_zoom(whole)
        steps = (*steps, *written)
        if not continuation.ended and len(written) == len(whole):  # a zoom that others follow is not cut short itself
            return Solution(request.problem.id, steps, None, "length", tokens)
        if not written or written[-1].kind != "zoom":
            return _closed(request.problem, steps, tokens)
        zoomed = _zoom(engine, request.problem, steps)
        if isinstance(zoomed, str):
            return Solution(request.problem.id, steps, None, zoomed, tokens)
        steps, turn = (*steps[:-1], zoomed), turn + 1
        key = f"{request.key}/{index}.{turn}"
        (continuation,) = await engine.sample(dataclasses.replace(request, steps=steps, n=1, key=key))


def _up_to_zoom(turn: Sequence[Step]) -> Sequence[Step]:
    """A zoom ends its turn. What was written after it was written before the crop was seen, and is dropped."""
    zoom = next((i for i, step in enumerate(turn) if step.kind == "zoom"), len(turn))
    return turn[: zoom + 1]


def _closed(problem: Problem, steps: tuple[Step, ...], tokens: int) -> Solution:
    answer = extract_answer(steps, problem.answer_type, choices_of(problem))
    return Solution(problem.id, steps, answer, "no_answer" if answer is None else "answer", tokens)


def _zoom(engine: Engine, problem: Problem, steps: Sequence[Step]) -> Step | str:
    """The last step, executed; or why it is not."""
    # The zooms of the prefix count too: what a state is worth must not depend on where its rollouts were sampled from.
    if sum(step.region is not None for step in steps) == MAX_ZOOMS:
        return "too_many_zooms"
    return execute_zoom(steps[-1], engine.dialect, open_image(problem.images[0]).size, engine.seen_size(problem))
