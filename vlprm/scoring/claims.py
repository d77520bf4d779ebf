"""Rewards from a published verifier that lists the wrong claims of a whole response: a step with such a claim has the
reward 0, any other step 1."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path

from vlprm.errors import ProblemError
from vlprm.labels.judge import CONTROL_TOKEN
from vlprm.model.loading import checkpoint_folder
from vlprm.policy import all_answers
from vlprm.policy.served import ChatModel
from vlprm.published.load import verifier
from vlprm.published.text import published_text
from vlprm.schema import Problem, Step, StepScore
from vlprm.scoring import Scored, Solutions
from vlprm.serving.client import Answer, Message, text_of
from vlprm.serving.config import ServerConfig
from vlprm.steps import join_steps, separator_after


class ClaimScorer:
    """A served verifier. The result is missing for an answer that cannot be read, or whose claims are all missing from
    the response, for a step with a crop, and for a response with a control token or the image's mark. UserError without
    the published prompt in the checkpoint's folder."""

    def __init__(self, name: str | Path, config: ServerConfig) -> None:
        found = verifier(name)
        assert found is not None, name
        folder = checkpoint_folder(name, weights=False)
        self.verifier, self.system = found, published_text(folder, found.system)
        self.asked = published_text(folder, found.asked)
        self.chat = ChatModel(config)

    async def check(self) -> None:
        """UserError if a server does not answer."""
        await self.chat.check()

    async def close(self) -> None:
        """Close the connections."""
        await self.chat.close()

    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        """Score solutions; see `Scorer.score`. Tokens are those that the verifier reads and writes. ProblemError for
        another number of images than one, or a question with the image's mark."""
        if len(problem.images) != 1:
            raise ProblemError("image_count", f"this verifier reads 1 image, not {len(problem.images)}; choose others")
        if self._mark_in(problem.question):
            raise ProblemError(
                "step_mark", f"the question {problem.question[:60]!r} has a mark of the prompt; remove it"
            )
        found = await all_answers(self._scores(problem, steps) for steps in solutions)
        return Scored([scores for scores, _ in found], [tokens for _, tokens in found])

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        """Nothing to do: no cache is kept."""

    def _mark_in(self, text: str) -> bool:
        return self.verifier.mark in text or bool(CONTROL_TOKEN.search(text))

    async def _scores(self, problem: Problem, steps: Sequence[Step]) -> tuple[list[StepScore | None], int]:
        none: list[StepScore | None] = [None] * len(steps)
        response = join_steps(steps)
        if not response.strip() or self._mark_in(response) or any(step.ends_turn for step in steps):
            return none, 0
        body = {"model": self.chat.config.model, "messages": self._turns(problem, response)}
        answer = await self.chat.servers.call(
            {**body, "temperature": 0, "max_tokens": self.verifier.max_tokens}, problem.id
        )
        if not isinstance(answer, Answer):
            return none, 0
        tokens = (answer.read or 0) + (answer.written or 0)
        said = text_of(answer.choices.get(0))
        claims = self.verifier.claims(said[0]) if not isinstance(said, str) and said[1] else None
        wrong = None if claims is None else wrong_steps(steps, claims)
        if wrong is None:
            return none, tokens
        return [StepScore(float(not of_step), None, None) for of_step in wrong], tokens

    def _turns(self, problem: Problem, response: str) -> list[Message]:
        """The system message, and the user's turn with the image between its two texts."""
        mark = self.verifier.mark
        text = self.asked.format(question=mark + problem.question, response=response)
        before, _, after = text.partition(mark)
        image = self.chat.servers.image(problem.images[0])
        content = [{"type": "text", "text": before.strip()}, image, {"type": "text", "text": after.strip()}]
        return [{"role": "system", "content": self.system}, {"role": "user", "content": content}]


def wrong_steps(steps: Sequence[Step], claims: Sequence[str]) -> list[bool] | None:
    """Which steps have a part of a claim, at its first place in the solution; None if there are claims, but none of
    them is a part of the solution."""
    response, spans, end = join_steps(steps), list[tuple[int, int]](), 0
    for step in steps:
        spans.append((end, end + len(step.text)))
        end += len(step.text) + len(separator_after(step))
    places = [(at, at + len(claim)) for claim in claims if claim and (at := response.find(claim)) >= 0]
    if claims and not places:
        return None
    return [any(start < stop and begin < until for begin, stop in places) for start, until in spans]
