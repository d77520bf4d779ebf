"""Models behind chat servers: a policy whose turn is continued, and any chat model that answers a question.

The server's chat template renders a policy's messages to the same text that `InputBuilder` makes of the problem and
steps. A call that fails becomes continuations with a `failure`, which count as no result.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from vlprm.errors import UserError
from vlprm.images import png
from vlprm.model.image_limits import to_serve
from vlprm.model.inputs import InputBuilder
from vlprm.policy import Continuation, Request, read_by_first
from vlprm.schema import Problem, Region
from vlprm.serving.client import (
    Answer,
    Failure,
    Message,
    Servers,
    text_of,
    unanswered,
    user_turn,
)
from vlprm.serving.config import ServerConfig
from vlprm.serving.messages import ZOOMS_DIFFER, messages, probe_problem, probe_steps, tools_of, with_question
from vlprm.serving.two_tokens import asked_for, first_of_two
from vlprm.steps import SEPARATOR, separator_after
from vlprm.zoom.boxes import Size
from vlprm.zoom.policy import ZoomPolicy

log = logging.getLogger(__name__)

# Fields in which servers say what stopped a text: a stop string, or something else at the end of a turn.
STOPPED_BY = ("stop_reason", "matched_stop")  # vLLM, SGLang


class ServedPolicy:
    """A served policy. `inputs` come from the checkpoint folder that is served."""

    def __init__(self, inputs: InputBuilder, config: ServerConfig) -> None:
        self.inputs, self.config = inputs, config
        self.dialect, self.zoom = inputs.config.dialect, inputs.config.zoom
        self.servers = Servers(config)
        self._sampling = _sampling(inputs)
        self._end_of_turn: str = inputs.tokenizer.decode([inputs.end_of_turn])

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> Size:
        """See `Policy.seen_size`."""
        return self.inputs.seen_size(problem, shown)

    def crop_tokens(self, problem: Problem, region: Region) -> int:
        """See `Policy.crop_tokens`."""
        return self.inputs.crop_tokens(problem, region)

    async def close(self) -> None:
        """Close the connections."""
        await self.servers.close()

    async def check(self) -> None:
        """UserError that names a server which does not continue an assistant's turn, or which reads other tokens than
        `inputs` makes (another chat template or other image sizes), with a zoom or without."""
        problem = probe_problem(self.inputs)
        for steps in probe_steps(self.inputs, problem):
            body = {**self._body(messages(problem, steps, self.inputs, self.servers.image)), "max_tokens": 1}
            expected = len(self.inputs.row(problem, steps).ids)
            for server in self.servers.each:
                answer = await self.servers.once(server, body)
                if isinstance(answer, Failure):
                    what = f"does not continue a turn of {self.config.model!r}"
                    raise UserError(unanswered(server, answer, what, "start it as configs/server/trees.yaml shows"))
                if answer.read not in (None, expected):
                    fix = to_serve(self.inputs.pixel_limits) if len(steps) == 1 else ZOOMS_DIFFER
                    raise UserError(
                        f"the server {server.url} reads {answer.read} tokens where the policy's folder makes"
                        f" {expected}; {fix}"
                    )
        for server in self.servers.each:
            await self.servers.learn_names(server, body)

    async def sample(self, request: Request) -> list[Continuation]:
        """Return `request.n` continuations; see `Policy.sample`."""
        if any(self.inputs.text.control_token(step.text) for step in request.steps):
            # Here the text stays text; a server would tokenize it to the control token that it spells out.
            return [_failed("control_token")] * request.n
        if request.between:
            return [await self._preference(request, request.between)] * request.n
        body = self._asked(request)
        if request.logprobs:
            body["logprobs"] = body["return_token_ids"] = True
        answer = await self.servers.call(body, request.problem.id)
        if isinstance(answer, Failure):
            return [_failed(answer.stop)] * request.n
        continuations = [self._continuation(answer.choices.get(i), request) for i in range(request.n)]
        if request.logprobs and self._continues_sampled_ids(request, answer.read):
            continuations = [with_ids(c, answer.choices.get(i)) for i, c in enumerate(continuations)]
        return read_by_first(continuations, self._prompt_tokens(request) if answer.read is None else answer.read)

    async def _preference(self, request: Request, texts: tuple[str, str]) -> Continuation:
        """The probability that the answer goes on like the first text. A failure if the server reads other tokens than
        this process, where the texts would part elsewhere."""
        begun, ids = self.inputs.text.parting(texts)
        turns = self._turns(request)
        if said := self.inputs.tokenizer.decode(begun):
            if turns[-1]["role"] == "assistant":
                said = turns.pop()["content"] + said
            turns.append({"role": "assistant", "content": said})
        form = asked_for(ids, goes_on=turns[-1]["role"] == "assistant")
        body = {"model": self.config.model, "messages": turns, **tools_of(self.inputs.config), **form}
        answer = await self.servers.call(body, request.problem.id)
        if isinstance(answer, Failure):
            return _failed(answer.stop)
        read = len(self.inputs.asked_row(request.problem, request.steps, request.asked or "", begun).ids)
        if answer.read not in (None, read):
            return _failed("other_tokens")
        found = first_of_two(answer.choices.get(0, {}), ids)
        return Continuation("", 1, True, "" if found is not None else "no_probability", read=read, probability=found)

    def _turns(self, request: Request) -> list[Message]:
        self.inputs.check_question(request.problem.question)
        turns = messages(request.problem, request.steps, self.inputs, self.servers.image)
        return with_question(turns, request.asked) if request.asked else turns

    def _prompt_tokens(self, request: Request) -> int:
        """Tokens of a request's prompt, for a server that does not report them."""
        return len(self.inputs.asked_row(request.problem, request.steps, request.asked or "").ids)

    def _continues_sampled_ids(self, request: Request, read: int | None) -> bool:
        """Whether the server read the ids that were sampled before, and not others with the same text; for the answer
        to a question, those of the steps and the question."""
        if request.asked is not None:
            return read == self._prompt_tokens(request) and self.inputs.served_alike(request.steps)
        turns = [(turn.steps, turn.ids) for turn in request.sampled]
        sampled = self.inputs.sampled_row(request.problem, request.steps, turns).ids
        return read == len(sampled) and sampled == self.inputs.row(request.problem, request.steps).ids

    def _asked(self, request: Request) -> dict[str, Any]:
        turns = self._turns(request)
        if not request.one_step:
            return {**self._body(turns), **_chance(request)}
        if turns[-1]["role"] == "assistant" and not self.inputs.text.joins(request.steps[-1]):
            turns[-1]["content"] += separator_after(request.steps[-1])
        return {**self._body(turns), **_chance(request), "stop": [SEPARATOR]}

    def _body(self, turns: Sequence[Message]) -> dict[str, Any]:
        goes_on = turns[-1]["role"] == "assistant"
        form = {"continue_final_message": goes_on, "add_generation_prompt": not goes_on}
        return {
            **self._sampling, "model": self.config.model, "messages": turns, **tools_of(self.inputs.config), **form,
        }  # fmt: skip

    def _continuation(self, choice: Message | None, request: Request) -> Continuation:
        said = text_of(choice)
        if isinstance(said, str):
            return _failed(said)
        text, ended = said[0].removesuffix(self._end_of_turn), said[1]  # some servers leave it in the text
        # Servers count the tokens of all choices together. The end of the turn counts as one, as in this process.
        tokens = len(self.inputs.tokenizer(text, add_special_tokens=False)["input_ids"]) + ended
        if request.one_step:
            goes_on = ended and choice is not None and self._ended_at_separator(choice, said[0])
            return Continuation(text.removesuffix(SEPARATOR), tokens, ended and not goes_on, goes_on=goes_on)
        after_step = bool(request.steps) and not request.steps[-1].ends_turn and request.asked is None
        between = separator_after(request.steps[-1]) if after_step else ""
        return Continuation(text.removeprefix(between), tokens, ended)

    def _ended_at_separator(self, choice: Message, text: str) -> bool:
        """Whether a step stopped at the separator after it, not at the end of the turn. UserError if the answer does
        not say which: the search would end after its first step."""
        for name in STOPPED_BY:
            if name in choice:
                return bool(choice[name] == SEPARATOR)
        if not text.endswith((SEPARATOR, self._end_of_turn)):
            raise UserError(
                f"the servers of {self.config.model!r} do not say what stopped a step (the field"
                f" {' or '.join(STOPPED_BY)}); serve the model with vLLM or SGLang, or choose a method that samples"
                " whole solutions, such as best_of_n"
            )
        return text.endswith(SEPARATOR)


class ChatModel:
    """Any served chat model, known only by its name: it answers questions, but does not continue steps.

    If the servers refuse a JSON schema, later requests go without one; the answer is parsed just as strictly.
    """

    dialect = "relative_1000"
    zoom = ZoomPolicy()

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.servers = Servers(config)
        self._takes_schema = True

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> Size:
        """Not supported: a chat model does not zoom."""
        raise AssertionError("a chat model does not zoom")

    def crop_tokens(self, problem: Problem, region: Region) -> int:
        """Not supported: a chat model does not zoom."""
        raise AssertionError("a chat model does not zoom")

    async def check(self) -> None:
        """UserError if a server does not answer a small question; the message has its reply."""
        for server in self.servers.each:
            answer = await self.servers.once(server, self._small_question())
            if isinstance(answer, Failure):
                what = f"does not answer as {self.config.model!r}"
                raise UserError(unanswered(server, answer, what, "start it as configs/server/judge.yaml shows"))
            await self.servers.learn_names(server, self._small_question(png(Image.new("RGB", (56, 56)))))

    def _small_question(self, *images: bytes) -> dict[str, Any]:
        turn = user_turn([self.servers.image(image) for image in images], "Answer with the word yes.")
        return {"model": self.config.model, "messages": [turn], "max_tokens": 16, "temperature": 0.7}

    async def close(self) -> None:
        """Close the connections."""
        await self.servers.close()

    async def sample(self, request: Request) -> list[Continuation]:
        """Return `request.n` answers to the problem's question."""
        assert not request.steps, "a chat model cannot continue steps"
        with_schema = self._takes_schema and request.schema is not None
        answer = await self.servers.call(self._body(request, with_schema), request.problem.id)
        if isinstance(answer, Failure) and answer.stop == "refused" and with_schema:
            said = answer.said
            answer = await self.servers.call(self._body(request, with_schema=False), request.problem.id)
            if isinstance(answer, Answer):  # otherwise the schema was not the reason for the refusal
                log.info("asking without a JSON schema from now on: %s", said)
                self._takes_schema = False
        if isinstance(answer, Failure):
            return [_failed(answer.stop)] * request.n
        return read_by_first([_told(answer, i, request.n) for i in range(request.n)], answer.read or 0)

    def _body(self, request: Request, with_schema: bool) -> dict[str, Any]:
        problem = request.problem
        turn = user_turn([self.servers.image(image) for image in problem.images], problem.question)
        schema = {"name": "answer", "strict": True, "schema": request.schema}
        form = {"response_format": {"type": "json_schema", "json_schema": schema}} if with_schema else {}
        return {"model": self.config.model, "messages": [turn], **form, **_chance(request)}


def _sampling(inputs: InputBuilder) -> dict[str, Any]:
    """Settings that make a server sample and render like the local policy, whatever the checkpoint's generation_config
    says. Control tokens are shown, because they are part of the text."""
    return {
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "skip_special_tokens": False,
        "logit_bias": {str(i): -100 for i in inputs.banned_ids},
    }


def _chance(request: Request) -> dict[str, Any]:
    digest = hashlib.sha256(f"{request.seed}/{request.key}".encode()).digest()
    return {
        "n": request.n,
        "seed": int.from_bytes(digest[:4], "big") >> 1,
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
    }


def with_ids(continuation: Continuation, choice: Message | None) -> Continuation:
    """The continuation with the token ids and log-probabilities of a server's choice; without both if the server does
    not give one of each for each token. vLLM gives those of the distribution that was sampled from if it is started
    with `--logprobs-mode processed_logprobs`."""
    ids, logprobs = (choice or {}).get("token_ids"), (choice or {}).get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    given: list[Any] = [one.get("logprob") for one in content or () if isinstance(one, dict)]
    if continuation.failure or not isinstance(ids, list) or len(ids) != len(given):
        return continuation
    if not all(type(i) is int for i in ids) or not all(type(p) in (int, float) for p in given):
        return continuation
    return replace(continuation, ids=tuple(ids), logprobs=tuple(map(float, given)))


def _told(answer: Answer, index: int, n: int) -> Continuation:
    said = text_of(answer.choices.get(index))
    if isinstance(said, str):
        return _failed(said)
    text, ended = said
    # Servers count the tokens of all choices together. If one does not count them, words are counted.
    tokens = len(text.split()) if answer.written is None else answer.written // n + (index < answer.written % n)
    return Continuation(text, tokens, ended)


def _failed(why: str) -> Continuation:
    return Continuation("", 0, False, why)
