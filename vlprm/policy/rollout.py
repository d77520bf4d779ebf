"""Sample solutions to the end: continue, cut the turn at its first zoom, execute it, show the crop, continue.

A solution is a list of whole steps, from which text, ids and images are derived; a step that a limit cut short is
dropped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from vlprm.answers import choices_of, extract_answer
from vlprm.images import whole_pixels
from vlprm.policy import Continuation, Policy, Request, Turn, all_answers
from vlprm.schema import Problem, Solution, Step
from vlprm.steps import SEPARATOR, separator_after, split_steps, untagged
from vlprm.zoom.execute import View, execute_zoom, whole_images, with_refusal_message
from vlprm.zoom.policy import REFUSALS, Refusal

OPEN = "open"  # the stop of a solution that may continue
TOO_MANY_ZOOMS = "too_many_zooms"
# Stops of failed calls of a policy, in the order in which they occur; see vlprm.serving.client.
FAILURES = (
    "control_token", "timeout", "connection", "refused", "busy", "server_error", "bad_answer", "no_choice", "no_text",
    "context",
)  # fmt: skip
# Why a solution ended; only `answer` is a result. A refused last zoom is kept without a region. A step cut short by a
# limit (`length`, `too_many_zooms`, `budget`) is dropped. `max_steps` comes from stepwise search.
STOPS = ("answer", "no_answer", "length", TOO_MANY_ZOOMS, *REFUSALS, *FAILURES, "max_steps")


@dataclass(frozen=True)
class Rollout:
    """A complete solution and the turns in which the policy sampled its last steps; the first `given` steps were given.
    A turn that failed is not among the turns."""

    solution: Solution
    turns: tuple[Turn, ...]
    given: int = 0


async def rollouts(engine: Policy, request: Request) -> list[Solution]:
    """`request.n` complete solutions that begin with `request.steps`. Never raises for what a policy writes: a solution
    without an answer counts as no result, and its `stop` says why."""
    return [rollout.solution for rollout in await rollouts_with_turns(engine, request)]


async def rollouts_with_turns(engine: Policy, request: Request) -> list[Rollout]:
    """`rollouts`, with the token ids of each turn; with `request.logprobs` also their log-probabilities."""
    first = await engine.sample(request)
    return await all_answers(_finish(engine, request, i, continuation) for i, continuation in enumerate(first))


async def next_steps(engine: Policy, request: Request, so_far: Solution) -> list[Solution]:
    """`request.n` solutions that extend `so_far` by one step; the stop is `open` if more may follow. A zoom is
    executed, and an answer ends the solution. Never raises for what a policy writes."""
    asked = dataclasses.replace(request, steps=so_far.steps, one_step=True)
    return [_advanced(engine, request.problem, so_far, c) for c in await engine.sample(asked)]


def _advanced(engine: Policy, problem: Problem, so_far: Solution, continuation: Continuation) -> Solution:
    if continuation.failure:
        return dataclasses.replace(so_far, stop=continuation.failure)
    tokens = so_far.tokens + continuation.tokens
    written = split_steps(continuation.text)
    # Text after a single line break is dropped; it is sampled again after the chosen step.
    more = len(written) > 1 and not separator_after(written[0])
    ended, goes_on = continuation.ended and not more, continuation.goes_on or more
    if not (ended or goes_on):
        return Solution(problem.id, so_far.steps, None, "length", tokens)
    steps = (*so_far.steps, *written[:1])
    if written and written[0].kind == "zoom":
        return _zoomed(engine, problem, steps, tokens)
    if ended or _answers(steps):
        return closed(problem, steps, tokens)
    return Solution(problem.id, steps, None, OPEN, tokens)


def _answers(steps: Sequence[Step]) -> bool:
    """Whether the last step is an answer. An answer tag on its own continues in the next paragraph."""
    kinds = [step.kind for step in steps[-2:]]
    if kinds == ["answer", "other"]:
        return not untagged(steps[-2].text)
    return kinds[-1:] == ["answer"] and bool(untagged(steps[-1].text))


async def _finish(engine: Policy, request: Request, index: int, continuation: Continuation) -> Rollout:
    so_far = Solution(request.problem.id, request.steps, None, OPEN, 0)
    turns: tuple[Turn, ...] = ()
    while not continuation.failure:
        so_far, turn = _after_turn(engine, request.problem, so_far, continuation)
        turns = (*turns, turn)
        if so_far.stop != OPEN:
            return Rollout(so_far, turns, len(request.steps))
        asked = dataclasses.replace(request, steps=so_far.steps, n=1, key=f"{request.key}/{index}.{len(turns)}")
        (continuation,) = await engine.sample(dataclasses.replace(asked, sampled=(*request.sampled, *turns)))
        so_far = dataclasses.replace(so_far, read=so_far.read + continuation.read)
    return Rollout(dataclasses.replace(so_far, stop=continuation.failure), turns, len(request.steps))


def _after_turn(
    engine: Policy, problem: Problem, so_far: Solution, continuation: Continuation
) -> tuple[Solution, Turn]:
    """The solution after a turn, which is open after a zoom, and the turn."""
    before, tokens, read = so_far.steps, so_far.tokens + continuation.tokens, so_far.read
    whole = split_steps(continuation.text)
    written = _up_to_zoom(whole)
    turn = Turn(len(written), continuation.ids, continuation.logprobs, "zoom" if len(written) < len(whole) else "end")
    if not continuation.ended and len(written) == len(whole):  # a zoom with text after it is complete
        last_is_whole = continuation.text.endswith(SEPARATOR)
        kept = written if last_is_whole else written[:-1]
        cut = dataclasses.replace(turn, steps=len(kept), stop="length")
        return Solution(problem.id, (*before, *kept), None, "length", tokens, read), cut
    steps = (*before, *written)
    if not written or written[-1].kind != "zoom":
        return closed(problem, steps, tokens, read), turn
    zoomed = dataclasses.replace(_zoomed(engine, problem, steps, tokens), read=read)
    return zoomed, dataclasses.replace(turn, steps=len(zoomed.steps) - len(before))


def _up_to_zoom(turn: Sequence[Step]) -> Sequence[Step]:
    """The steps up to the first zoom, which ends the turn. Later text was written without seeing the crop."""
    zoom = next((i for i, step in enumerate(turn) if step.kind == "zoom"), len(turn))
    return turn[: zoom + 1]


def closed(problem: Problem, steps: tuple[Step, ...], tokens: int, read: int = 0) -> Solution:
    """The finished solution with these steps, with or without an answer."""
    answer = extract_answer(steps, problem.answer_type, choices_of(problem))
    return Solution(problem.id, steps, answer, "no_answer" if answer is None else "answer", tokens, read)


def _zoomed(engine: Policy, problem: Problem, steps: tuple[Step, ...], tokens: int) -> Solution:
    """Execute the last step, a zoom. The solution stays open unless a limit or a refusal ends it."""
    before, policy = steps[:-1], engine.zoom
    # Zooms of the prefix count too, so that a state's value does not depend on where its rollouts began.
    if sum(step.ends_turn for step in before) >= policy.max_zooms:
        return Solution(problem.id, before, None, TOO_MANY_ZOOMS, tokens)
    images = [View(region, engine.seen_size(problem, k)) for k, region in enumerate(whole_images(problem))]
    crops = [View(whole_pixels(s.region), engine.seen_size(problem, s.region)) for s in before if s.region is not None]
    found: Step | Refusal = execute_zoom(steps[-1], engine.dialect, images, crops, policy)
    if isinstance(found, Step) and _over_budget(engine, problem, (*before, found)):
        found = "budget"
    if isinstance(found, Step):
        return Solution(problem.id, (*before, found), None, OPEN, tokens)
    if policy.on_refusal == "tell":
        answered = with_refusal_message(steps[-1], found, engine.dialect, images, crops, policy)
        return Solution(problem.id, (*before, answered), None, OPEN, tokens)
    return Solution(problem.id, before if found == "budget" else steps, None, found, tokens)


def _over_budget(engine: Policy, problem: Problem, steps: Sequence[Step]) -> bool:
    """Whether the crops of the steps exceed the policy's limits."""
    regions, policy = [step.region for step in steps if step.region is not None], engine.zoom
    if policy.max_images and len(problem.images) + len(regions) > policy.max_images:
        return True
    tokens = sum(engine.crop_tokens(problem, region) for region in regions) if policy.max_crop_tokens else 0
    return tokens > policy.max_crop_tokens
