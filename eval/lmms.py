"""A policy, a reward model and a search method as one model for lmms-eval.

    lmms-eval --model vlprm --model_args policy=builtin/policy,reward_model=runs/demo/prm,method=best_of_n,n=8 --tasks T

lmms-eval finds it through the entry point in pyproject.toml. Its tasks score the answer text of the chosen solution
(`eval.runs.problem_sets.answer_text`), because their extractors would take letters and numbers of any step for answers.
No result is an empty text; the log counts these by cause.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jsonargparse.typing import PositiveInt
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from loguru import logger
from PIL import Image

from eval.runs.models import Models, open_models, refuse_missing_models
from eval.runs.problem_sets import answer_text
from vlprm.errors import ProblemError, UserError
from vlprm.images import encoded, open_image
from vlprm.policy import all_answers
from vlprm.runs.config import parse
from vlprm.schema import AnswerType, Problem
from vlprm.scoring.config import ScorerConfig
from vlprm.search import SearchConfig, SearchResult, solve
from vlprm.serving.config import ModelConfig

MODELS = ("policy", "reward_model", "critic")
SEARCH = {field.name for field in dataclasses.fields(SearchConfig)}


@dataclass(frozen=True)
class LmmsConfig:
    """Fields of `--model_args`. Fields of `search` are given without a prefix, such as `n=8`.

    Args:
        policy: model that writes solutions.
        method: search method, one of vlprm.search.METHODS.
        search: settings of the search method.
        reward_model: model that scores steps, if the method needs one.
        scorer: how the reward model scores.
        critic: reward model trained to write critiques, if the method needs one.
        answer_type: how votes compare answers: as text, choice, integer, float, list, expression or word.
        unit: problems solved concurrently.
    """

    policy: ModelConfig
    method: str = "best_of_n"
    search: SearchConfig = SearchConfig()
    reward_model: ModelConfig | None = None
    scorer: ScorerConfig = ScorerConfig()
    critic: ModelConfig | None = None
    answer_type: AnswerType = "text"
    unit: PositiveInt = 32


@dataclass(frozen=True)
class Response:
    """The text that a task scores, and its tokens. `failure`: why the text is empty."""

    text: str
    tokens: int
    failure: str = ""


def manifest() -> ModelManifest:
    """The model's entry in lmms-eval's registry."""
    return ModelManifest("vlprm", simple_class_path="eval.lmms.Vlprm")


class Vlprm(lmms):  # type: ignore[misc]
    """The model class. It ignores lmms-eval's `batch_size` and the tasks' generation_kwargs."""

    def __init__(self, batch_size: Any = None, max_batch_size: Any = None, device: Any = None, **settings: Any) -> None:
        super().__init__()
        if device is not None:
            settings |= {f"{name}.device": device for name in MODELS if name in settings}
        self.config = parse(LmmsConfig, [_flag(name, value) for name, value in settings.items()])
        refuse_missing_models(
            [self.config.method],
            self.config.reward_model,
            self.config.critic,
            self.config.scorer,
            self.config.search.aggregation,
        )

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Solve each request and return the answer texts."""
        said = asyncio.run(self._all(requests))
        failures = Counter(one.failure for one in said if one.failure)
        if failures:
            why = ", ".join(f"{name} {count}" for name, count in failures.most_common())
            logger.warning(f"{failures.total()} of {len(said)} requests have no result and return an empty text: {why}")
        return [GenerationResult(one.text, TokenCounts(output_tokens=one.tokens)) for one in said]

    async def _all(self, requests: Sequence[Instance]) -> list[Response]:
        said: list[Response] = []
        seen: Counter[str] = Counter()
        config = self.config
        reward_models = [config.reward_model] if config.reward_model else []
        async with open_models(config.policy, reward_models, config.scorer, config.critic) as models:
            for start in range(0, len(requests), self.config.unit):
                unit = [(request, _id(request, seen)) for request in requests[start : start + self.config.unit]]
                said += await all_answers(self._one(request, name, models) for request, name in unit)
                logger.info(f"{len(said)} of {len(requests)} requests done")
        return said

    async def _one(self, request: Instance, name: str, models: Models) -> Response:
        try:
            problem = self._problem(request, name)
            found = await solve(
                self.config.method, problem, models.policy, models.scorer, self.config.search, models.critic
            )
        except ProblemError as error:
            logger.warning(str(error))
            return Response("", 0, error.cause)
        return response_of(found)

    def _problem(self, request: Instance, name: str) -> Problem:
        question, _, shows, doc, task, split = request.args
        images = tuple(_file(image, name) for image in shows(self.task_dict[task][split][doc]) or ())
        return Problem(name, task, question, images, None, self.config.answer_type)

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Not supported: UserError."""
        raise UserError("vlprm does not compute the likelihood of given texts; choose a generate_until task")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Not supported: UserError."""
        raise UserError("vlprm does not support multi-round generation; choose a generate_until task")


def response_of(found: SearchResult) -> Response:
    """The answer text of the chosen candidate; empty without a candidate or an answer."""
    tokens = found.cost.policy_sampled + found.cost.critic_sampled
    if found.chosen is None:
        return Response("", tokens, "no_candidate")
    text = answer_text(found.chosen.solution)
    return Response("", tokens, found.chosen.solution.stop) if text is None else Response(text, tokens)


def _flag(name: str, value: Any) -> str:
    return f"--search.{name}={value}" if name in SEARCH else f"--{name}={value}"


def _id(request: Instance, seen: Counter[str]) -> str:
    """A separate id for each repeat of a document: equal ids would sample equal candidates."""
    _, _, _, doc, task, split = request.args
    document = f"{task}/{split}/{doc}"
    seen[document] += 1
    return f"{document}/{seen[document]}"


def _file(image: Any, name: str) -> bytes:
    if not isinstance(image, Image.Image):
        raise UserError(f"{name} contains a {type(image).__name__}, but vlprm reads only images; choose another task")
    try:
        data = encoded(image)
        open_image(data, name)
    except (OSError, ValueError) as error:
        raise ProblemError("image_unreadable", f"{name}: {error}") from error
    return data
