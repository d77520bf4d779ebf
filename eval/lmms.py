"""A policy, a reward model and a method, as one model of lmms-eval.

    lmms-eval --model vlprm --model_args policy=builtin/policy,reward_model=runs/demo/prm,method=best_of_n,n=8 --tasks T

lmms-eval finds it by the entry point that pyproject.toml declares. Its tasks score texts: they get what authors' rules
read of the chosen solution (`eval.runs.problem_sets.answer_text`), since their extractors take letters and numbers of
any step for answers. It has no word for a *no result*: that is an empty text, and how many there were, and why, is
logged.
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
    """What `--model_args` may hold; the fields of `search` stand there by their own names, such as `n=8`.

    Args:
        policy: the model that writes solutions.
        method: one of vlprm.search.METHODS.
        search: how many candidates, and how they are chosen.
        reward_model: the model that rewards steps, where the method needs one.
        scorer: what is asked of the reward model.
        critic: a reward model that has learnt critiques, where the method needs one.
        answer_type: by which votes tell answers apart: text, choice, integer, float, list, expression or word.
        unit: problems that are solved side by side.
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
    """What a task gets of a request; `failure` says why it is empty."""

    text: str
    tokens: int
    failure: str = ""


def manifest() -> ModelManifest:
    return ModelManifest("vlprm", simple_class_path="eval.lmms.Vlprm")


class Vlprm(lmms):  # type: ignore[misc]
    """lmms-eval's `batch_size` is not read, nor are a task's generation_kwargs: the method's settings are its own."""

    def __init__(self, batch_size: Any = None, max_batch_size: Any = None, device: Any = None, **settings: Any) -> None:
        super().__init__()
        if device is not None:
            settings |= {f"{name}.device": device for name in MODELS if name in settings}
        self.config = parse(LmmsConfig, [_flag(name, value) for name, value in settings.items()])
        self.config.scorer.check(self.config.search.aggregation)
        refuse_missing_models([self.config.method], self.config.reward_model, self.config.critic)

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        said = asyncio.run(self._all(requests))
        failures = Counter(one.failure for one in said if one.failure)
        if failures:
            why = ", ".join(f"{name} {count}" for name, count in failures.most_common())
            logger.warning(f"{failures.total()} of {len(said)} have no result, and are empty texts: {why}")
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
                logger.info(f"{len(said)} of {len(requests)} done")
        return said

    async def _one(self, request: Instance, name: str, models: Models) -> Response:
        try:
            problem = self._problem(request, name)
            found = await solve(
                self.config.method, problem, models.policy, models.scorer, self.config.search, models.critic
            )
        except ProblemError as error:
            logger.warning(str(error))
            return Response("", 0, error.failure)
        return response_of(found)

    def _problem(self, request: Instance, name: str) -> Problem:
        question, _, shows, doc, task, split = request.args
        images = tuple(_file(image, name) for image in shows(self.task_dict[task][split][doc]) or ())
        return Problem(name, task, question, images, None, self.config.answer_type)

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        raise UserError("vlprm writes solutions and has no likelihood of given ones; choose a task of generate_until")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        raise UserError("vlprm answers one question and holds no dialogue; choose a task of generate_until")


def response_of(found: SearchResult) -> Response:
    tokens = found.cost.policy_tokens + found.cost.critic_tokens
    if found.chosen is None:
        return Response("", tokens, "no_candidate")
    text = answer_text(found.chosen.solution)
    return Response("", tokens, found.chosen.solution.stop) if text is None else Response(text, tokens)


def _flag(name: str, value: Any) -> str:
    return f"--search.{name}={value}" if name in SEARCH else f"--{name}={value}"


def _id(request: Instance, seen: Counter[str]) -> str:
    """Of each time that a document is asked: equal ids would sample equal candidates."""
    _, _, _, doc, task, split = request.args
    document = f"{task}/{split}/{doc}"
    seen[document] += 1
    return f"{document}/{seen[document]}"


def _file(image: Any, name: str) -> bytes:
    if not isinstance(image, Image.Image):
        raise UserError(f"{name} shows a {type(image).__name__}, and vlprm reads images alone; choose another task")
    try:
        data = encoded(image)
        open_image(data, name)
    except (OSError, ValueError) as error:
        raise ProblemError("image_unreadable", f"{name}: {error}") from error
    return data
