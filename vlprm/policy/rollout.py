"""Sample solutions to the end: continue, cut the turn at its first zoom, execute it, show the crop, continue.

A solution is a list of whole steps, from which text, ids and images are made together: what a limit cuts short is in
none of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from vlprm.answers import choices_of, extract_answer
from vlprm.images import whole_pixels
from vlprm.policy import Continuation, Policy, Request, Turn, all_answers
from vlprm.schema import Problem, Solution, Step
from vlprm.steps import SEPARATOR, separator_after, split_steps, untagged
from vlprm.zoom.execute import View, execute_zoom, whole_images, with_refusal_message
from vlprm.zoom.policy import REFUSALS, Refusal

OPEN = "open"  # the stop of a solution that may go on
TOO_MANY_ZOOMS = "too_many_zooms"
# Of an engine whose call failed, in the order in which one meets them; see vlprm.serving.client.
FAILURES = (
    "control_token", "timeout", "connection", "refused", "busy", "server_error", "bad_answer", "no_choice", "no_text",
    "context",
)  # fmt: skip
# Why a solution ended. `answer` alone is a result. A refusal is that of its last zoom; its step is kept, without a
# region. What a limit (`length`, `too_many_zooms`, `budget`) cut short is not. `max_steps` is that of a search.
STOPS = ("answer", "no_answer", "length", TOO_MANY_ZOOMS, *REFUSALS, *FAILURES, "max_steps")


async def rollouts(engine: Policy, request: Request) -> list[Solution]:
    """`request.n` complete solutions that open with `request.steps`. Never raises for what a policy writes:
    a solution without an answer has a `stop` that says why, and counts as no result."""
    first = await engine.sample(request)
    return await all_answers(_finish(engine, request, i, continuation) for i, continuation in enumerate(first))


async def next_steps(engine: Policy, request: Request, so_far: Solution) -> list[Solution]:
    """`request.n` times the solution `so_far` with one more step; its stop is `open` where more may follow. A zoom is
    executed, and an answer ends the solution. Never raises for what a policy writes."""
    asked = dataclasses.replace(request, steps=so_far.steps, one_step=True)
    return [_advanced(engine, request.problem, so_far, c) for c in await engine.sample(asked)]


def _advanced(engine: Policy, problem: Problem, so_far: Solution, continuation: Continuation) -> Solution:
    if continuation.failure:
        return dataclasses.replace(so_far, stop=continuation.failure)
    tokens = so_far.tokens + continuation.tokens
    written = split_steps(continuation.text)
    # What a single line break parts from the first step is written anew, after the step that is chosen.
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
    """Whether the last step is an answer; one that is a tag alone goes on in the paragraph after it."""
    kinds = [step.kind for step in steps[-2:]]
    if kinds == ["answer", "other"]:
        return not untagged(steps[-2].text)
    return kinds[-1:] == ["answer"] and bool(untagged(steps[-1].text))


async def _finish(engine: Policy, request: Request, index: int, continuation: Continuation) -> Solution:
    problem, steps, tokens = request.problem, request.steps, 0
    sampled: tuple[Turn, ...] = ()
    while True:
        if continuation.failure:
            return Solution(problem.id, steps, None, continuation.failure, tokens)
        tokens += continuation.tokens
        whole = split_steps(continuation.text)
        written = _up_to_zoom(whole)
        if not continuation.ended and len(written) == len(whole):  # a zoom that others follow is not cut short itself
            last_is_whole = continuation.text.endswith(SEPARATOR)
            kept = written if last_is_whole else written[:-1]
            return Solution(problem.id, (*steps, *kept), None, "length", tokens)
        steps = (*steps, *written)
        if not written or written[-1].kind != "zoom":
            return closed(problem, steps, tokens)
        zoomed = _zoomed(engine, problem, steps, tokens)
        if zoomed.stop != OPEN:
            return zoomed
        steps, sampled = zoomed.steps, (*sampled, Turn(len(written), continuation.ids))
        asked = dataclasses.replace(request, steps=steps, n=1, key=f"{request.key}/{index}.{len(sampled)}")
        (continuation,) = await engine.sample(dataclasses.replace(asked, sampled=sampled))


def _up_to_zoom(turn: Sequence[Step]) -> Sequence[Step]:
    """A zoom ends its turn. What was written after it was written before the crop was seen, and is dropped."""
    zoom = next((i for i, step in enumerate(turn) if step.kind == "zoom"), len(turn))
    return turn[: zoom + 1]


def closed(problem: Problem, steps: tuple[Step, ...], tokens: int) -> Solution:
    """The solution that ends with these steps, whether there is an answer in them or not."""
    answer = extract_answer(steps, problem.answer_type, choices_of(problem))
    return Solution(problem.id, steps, answer, "no_answer" if answer is None else "answer", tokens)


def _zoomed(engine: Policy, problem: Problem, steps: tuple[Step, ...], tokens: int) -> Solution:
    """The solution whose last step is a zoom, once that was executed; open, unless a limit or a refusal ends it."""
    before, policy = steps[:-1], engine.zoom
    # The zooms of the prefix count too: what a state is worth must not depend on where its rollouts were sampled from.
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
    """Whether the crops of the steps are more than the policy allows."""
    regions, policy = [step.region for step in steps if step.region is not None], engine.zoom
    if policy.max_images and len(problem.images) + len(regions) > policy.max_images:
        return True
    tokens = sum(engine.crop_tokens(problem, region) for region in regions) if policy.max_crop_tokens else 0
    return tokens > policy.max_crop_tokens
