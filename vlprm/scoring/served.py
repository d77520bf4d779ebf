"""The scores of `vlprm.scoring.tree` from an unmodified vLLM that serves the folder of a reward model.

    vllm serve CHECKPOINT --served-model-name prm --dtype float32 --runner pooling     # a step head
    vllm serve CHECKPOINT --served-model-name prm --dtype float32                      # a verdict head

    model = ModelConfig("CHECKPOINT", ServerConfig(("http://localhost:8000/v1",), "prm"))
    async with open_served_scorer(model) as served:
        scores = await served.score_steps([(problem, solution.steps)])

A step head takes one call per solution, for a softmax over the outputs at each token. A verdict head takes one call per
step, for the log-probabilities of the two verdicts; the server's prefix cache avoids reading the earlier steps again. A
step without a score is None (no result).

The server tokenizes the text of a turn. If its tokens would differ from those of training, the solution is not sent; if
the server's token count differs from this process's, it serves another folder, and the run stops.
`python -m eval.parity` compares the scores with those of this process.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from vlprm.errors import UserError
from vlprm.model.image_limits import to_serve
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import checkpoint_folder
from vlprm.model.packing import PackedRow
from vlprm.model.reward_loading import extra_outputs_of
from vlprm.model.reward_model import OUTPUTS, StepOutput, extra_logits, step_scores
from vlprm.policy import all_answers
from vlprm.prompts import verdict_text
from vlprm.published.dialogue import dialogue, is_dialogue
from vlprm.published.inputs import PublishedInputs
from vlprm.published.load import reward_inputs
from vlprm.schema import Problem, Step, StepScore
from vlprm.scoring import Scored
from vlprm.scoring.scored_tree import of_all
from vlprm.scoring.tree import ProblemKey, problem_key
from vlprm.serving.client import Answer, Failure, Kind, Message, Servers, unanswered, vllm_version
from vlprm.serving.config import ServerConfig
from vlprm.serving.messages import ZOOMS_DIFFER, messages, probe_problem, probe_steps, tools_of, with_question
from vlprm.serving.two_tokens import asked_for, first_of_two

log = logging.getLogger(__name__)

# Earlier releases of vLLM do not surely have its pull request 28194: without it, a pooled prompt whose beginning is in
# the prefix cache has no outputs for the tokens of that beginning. A build from source (0.1.dev...) is not compared.
OLDEST = (0, 12)
_RELEASE = re.compile(r"(\d+)\.(\d+)(?!.*dev)")
ROUNDING = 1e-3  # tolerance of a sum of probabilities, for half precision

Scores = list[StepScore | None]
Beginning = tuple[Step, ...]


class ServedScorer:
    """A served reward model. `reward_model` is the folder that is served; its weights are not loaded here.

    UserError if it has no reward head, or one that needs more than the last hidden states.
    """

    def __init__(self, reward_model: str | Path, config: ServerConfig) -> None:
        self.folder = checkpoint_folder(reward_model, weights=False)
        self.inputs = reward_inputs(reward_model, weights=False)
        self.head = self.inputs.config.head
        _refuse_unservable(self.folder, self.inputs)
        self.config = config
        self.extra_outputs = extra_outputs_of(self.folder) if self.head == "step" else ()
        # A step head scores all steps in one call, a verdict head one step per call with a prefix that the
        # server has cached.
        self.kind: Kind = "pooling" if self.head == "step" else "chat"
        log.info("%s has a %s head, which is read with %s calls", self.folder, self.head, self.kind)
        self.servers = Servers(config)
        self._known: dict[tuple[ProblemKey, Hashable], dict[Beginning, StepScore]] = {}

    async def close(self) -> None:
        """Close the connections."""
        await self.servers.close()

    async def check(self) -> None:
        """UserError that names a server which returns no scores, or which reads other tokens than `inputs` makes, with
        a zoom or without."""
        if self.head == "step":
            await self._refuse_old_servers()
        problem = probe_problem(self.inputs)
        for steps in probe_steps(self.inputs, problem):
            row = self.inputs.row(problem, steps)
            fix = "" if len(steps) == 1 else ZOOMS_DIFFER
            for server in self.servers.each:
                answer = await self.servers.once(server, self._body(problem, steps), self.kind)
                if self._read(answer, row, (len(steps) - 1,), fix) == [None]:
                    failure = answer if isinstance(answer, Failure) else Failure("no_scores", "another kind of answer")
                    what = f"does not score as {self.config.model!r}"
                    raise UserError(unanswered(server, failure, what, f"serve {self.folder} as {__name__} says"))
                await self.servers.learn_names(server, self._body(problem, steps), self.kind)

    async def _refuse_old_servers(self) -> None:
        for server in self.servers.each:
            version = await vllm_version(server)
            if version and (found := _RELEASE.match(version)) and (int(found[1]), int(found[2])) < OLDEST:
                raise UserError(
                    f"the server {server.url} runs vLLM {version}, which leaves out the outputs of tokens that its"
                    f" prefix cache holds; serve {self.folder} with vLLM {'.'.join(map(str, OLDEST))} or later"
                )

    async def score_steps(self, solutions: Sequence[tuple[Problem, Sequence[Step]]]) -> list[Scores]:
        """One list per solution, one score per step. A score is None if the step cannot be read, its text would be
        tokenized differently than its steps, the call failed, or the server does not list a verdict. UserError if a
        server reads other tokens than the model was trained on."""
        parts = [self._askable(problem, steps) for problem, steps in solutions]
        found = await all_answers(self._scores(p, part) for (p, _), part in zip(solutions, parts, strict=True))
        return [of_all(scores, steps) for scores, (_, steps) in zip(found, solutions, strict=True)]

    async def score(self, problem: Problem, solutions: Sequence[Sequence[Step]], attempt: Hashable = None) -> Scored:
        """See `Scorer.score`. Steps scored before in the attempt are not asked about again and cost no tokens."""
        known = {} if attempt is None else self._known.setdefault((problem_key(problem), attempt), {})
        askable = [self._askable(problem, steps) for steps in solutions]
        beginnings = [[tuple(steps[: k + 1]) for k in range(len(steps))] for steps in askable]
        wanted = [self._wanted(part, known) for part in beginnings]
        read = {steps: self._read_for(problem, steps) for of_solution in wanted for steps in of_solution}
        firsts = [len(steps) - 1 if self.head == "verdict" else 0 for steps in read]
        found = await all_answers(self._scores(problem, s, first) for s, first in zip(read, firsts, strict=True))
        for steps, scores in zip(read, found, strict=True):
            known |= {steps[: k + 1]: score for k, score in enumerate(scores) if score is not None}
        answer = [of_all([*map(known.get, part)], steps) for part, steps in zip(beginnings, solutions, strict=True)]
        return Scored(answer, [sum(read.pop(steps, 0) for steps in of_solution) for of_solution in wanted])

    def _wanted(self, beginnings: Sequence[Beginning], known: Mapping[Beginning, StepScore]) -> Sequence[Beginning]:
        """The prefixes to ask about to score a solution's prefixes."""
        new = [beginning for beginning in beginnings if beginning not in known]
        return new if self.head == "verdict" else beginnings[-1:] if new else []

    def _read_for(self, problem: Problem, steps: Sequence[Step]) -> int:
        row = self.inputs.row(problem, steps)
        return _seen_from(row, row.step_ends[-1])

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        """Drop the attempt's known scores."""
        self._known.pop((problem_key(problem), attempt), None)

    def _askable(self, problem: Problem, steps: Sequence[Step]) -> Sequence[Step]:
        """The steps that can be read and that a server tokenizes as this process does."""
        steps = self.inputs.readable(problem, steps)
        while steps and not self.inputs.served_alike(steps):
            steps = steps[:-1]
        return steps

    async def _scores(self, problem: Problem, steps: Sequence[Step], first: int = 0) -> Scores:
        """Scores of the steps. A verdict head is asked only from step `first` on."""
        if not steps:
            return []
        row = self.inputs.row(problem, steps)
        if self.head == "step":
            return await self._asked(problem, steps, row, range(len(steps)))
        ends = range(first + 1, len(steps) + 1)
        parts = await all_answers(self._asked(problem, steps[:end], row, (end - 1,)) for end in ends)
        return [*[None] * first, *(score for part in parts for score in part)]

    async def _asked(self, problem: Problem, steps: Sequence[Step], row: PackedRow, wanted: Sequence[int]) -> Scores:
        return self._read(await self.servers.call(self._body(problem, steps), problem.id, self.kind), row, wanted)

    def _body(self, problem: Problem, steps: Sequence[Step]) -> dict[str, Any]:
        """The request for a solution; with a verdict head, for its last step."""
        checkpoint_config = self.inputs.config
        if isinstance(self.inputs, PublishedInputs):
            turns = dialogue(self.inputs, problem, steps, self.servers.image)
            return {"model": self.config.model, "messages": turns, **asked_for(self.inputs.verdict_ids)}
        turns = messages(problem, steps, self.inputs, self.servers.image)
        asked = {"model": self.config.model, "messages": turns}
        if self.head == "step":
            goes_on = turns[-1]["role"] == "assistant"
            form = {"continue_final_message": goes_on, "add_generation_prompt": not goes_on}
            # A pooling call silently ignores the field `tools`.
            tools = (
                {"chat_template_kwargs": {"tools": checkpoint_config.zoom.tools}}
                if checkpoint_config.zoom.tools
                else {}
            )
            return {**asked, "task": "token_classify", **tools, **form}
        asked["messages"] = with_question(
            turns, verdict_text(checkpoint_config.verdict_template, checkpoint_config.verdicts)
        )
        return {**asked, **tools_of(checkpoint_config), **asked_for(self.inputs.verdict_ids)}

    def _read(self, answer: Answer | Failure, row: PackedRow, wanted: Sequence[int], fix: str = "") -> Scores:
        """The scores of the wanted steps; the answer's prompt ends with the last of them. `fix`: what to do about a
        server that reads other tokens, if not to serve the folder."""
        if isinstance(answer, Failure):
            return [None] * len(wanted)
        ends = [row.step_ends[step] for step in wanted]
        choice = answer.choices.get(0, {})
        if self.head == "verdict":
            self._check_length(answer.read, _seen_from(row, ends[-1]), fix)
            return [_verdict(choice, self.inputs.verdict_ids)]
        rows = choice.get("data")
        if not isinstance(rows, list):
            return [None] * len(wanted)
        self._check_length(len(rows), len(row.ids), fix)
        return [_outputs(rows[end], self.extra_outputs) for end in ends]

    def _check_length(self, read: int | None, expected: int, fix: str) -> None:
        if read not in (None, expected):
            raise UserError(
                f"a server of {self.config.model!r} reads {read} tokens where {self.folder} makes {expected};"
                f" {fix or to_serve(self.inputs.pixel_limits)}"
            )


def _refuse_unservable(folder: Path, inputs: InputBuilder) -> None:
    head = inputs.config.head
    if isinstance(inputs, PublishedInputs) and not is_dialogue(inputs):
        raise UserError(
            f"{folder} is scored inside the assistant's turn, which servers do not read; remove the server to score it"
            " in this process"
        )
    if head == "none":
        raise UserError(f"{folder} has no reward head (vlprm.json says head: none); train one with train.prm")
    if head == "implicit":
        raise UserError(
            f"{folder} has an implicit head, whose rewards compare two models; remove the server to score it in this"
            " process"
        )
    config = AutoConfig.from_pretrained(folder)
    for name in ("surprise", "lookback"):
        if head == "step" and getattr(config, name, False):
            raise UserError(
                f"{folder} has a head that reads {name}, which servers do not compute; score it in this process, or"
                f" train one with {name}: false"
            )


def _seen_from(row: PackedRow, end: int) -> int:
    """Number of tokens on the path to a scored position, itself included."""
    return sum(end < until for until in row.until[: end + 1])


def _verdict(choice: Message, ids: Sequence[int]) -> StepScore | None:
    correct = first_of_two(choice, ids)
    return None if correct is None else StepScore(correct, None, None)


def _outputs(row: Any, extra: Sequence[str]) -> StepScore | None:
    """The score in a token's softmax over the outputs; None if the row is something else, such as an embedding, or if
    an output is rounded to 0 from which a further one is counted."""
    numbers = row if isinstance(row, list) and all(isinstance(p, int | float) for p in row) else []
    if len(numbers) != len(OUTPUTS) + len(extra) or min(numbers) < 0 or not abs(sum(numbers) - 1) < ROUNDING:
        return None
    if not extra:
        return StepScore(*numbers)
    if min(numbers) == 0:
        return None
    logits_O = torch.tensor(numbers, dtype=torch.float64).log()
    more = {name: logit[None, None] for name, logit in extra_logits(logits_O, extra).items()}
    return step_scores(StepOutput(logits=logits_O[None, None, : len(OUTPUTS)], **more), "step")[0][0]
