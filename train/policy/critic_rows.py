"""Critiques of labelled steps as rows in TRL's formats.

images       List(Image): the problem's images, then the crops of zooms before the question
prompt       messages; the last one asks about the last step or, without a question, is the assistant's, to be continued
completion   kept: one assistant message, the critique
chosen, rejected   pairs: one assistant message each
right        prompts: whether the last step is right
problem      prompts: JSON of the problem, with the number of its images
steps        prompts: JSON of the steps
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from datasets import Value

from train.policy.critic_rows_config import CriticRowsConfig
from train.policy.trl_pairs import TRL_FEATURES
from train.reward.critiques import known_until
from train.reward.trees import is_wrong, selected
from vlprm.answers import choices_of
from vlprm.data.dataset import LabelledPath
from vlprm.model.inputs import InputBuilder
from vlprm.policy import Policy
from vlprm.policy.critic_reward import LabelledStep
from vlprm.policy.critique import StepCritique, parse_critique, step_critiques
from vlprm.policy.refinement import right_refinements
from vlprm.policy.usage import CountedPolicy
from vlprm.prompts import CritiqueTemplate
from vlprm.schema import to_json
from vlprm.serving.trl_turns import trl_turn, trl_turns

_PROMPT = {name: TRL_FEATURES[name] for name in ("images", "prompt")}
FEATURES: dict[str, dict[str, Any]] = {
    "kept": {**_PROMPT, "completion": TRL_FEATURES["chosen"]},
    "pairs": TRL_FEATURES,
    "prompts": {**_PROMPT, "right": Value("bool"), "problem": Value("string"), "steps": Value("string")},
}


@dataclass(frozen=True)
class Criticised:
    """The different critiques of a step that agree with its label, and those that do not; how many could not be read,
    how many agree but did not help, and how many calls failed."""

    agree: tuple[str, ...]
    differ: tuple[str, ...]
    unread: int
    useless: int
    failed: int

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, record: dict[str, Any]) -> Criticised:
        """From JSON."""
        return cls(**{**record, "agree": tuple(record["agree"]), "differ": tuple(record["differ"])})


def steps_of(tree: Sequence[LabelledPath], config: CriticRowsConfig) -> list[LabelledStep]:
    """The steps of a problem's solutions up to the first that is wrong or without a label, each once."""
    found: dict[int, LabelledStep] = {}
    for path in selected(tree, config.solutions):
        for k in range(known_until(path, config.threshold)):
            right = not is_wrong(path.labels[k], config.threshold)
            found[path.nodes[k]] = LabelledStep(path.problem, path.steps[: k + 1], right)
    return list(found.values())


async def criticised(
    step: LabelledStep, config: CriticRowsConfig, template: CritiqueTemplate, critic: Policy, policy: Policy | None
) -> Criticised:
    """Sample critiques of a step and compare them with its label."""
    key = f"{step.problem.id}/{len(step.steps)}/{step.steps[-1].text}"
    counted = CountedPolicy(critic)
    asked = counted, step.problem, step.steps, template, key, config.seed, config.samples, config.temperature
    agree: list[str] = []
    differ: list[str] = []
    unread = useless = 0
    for i, (text, said) in enumerate(await step_critiques(*asked)):
        written = parse_critique(text, template)
        if said is None or written is None or (said.corrected is None) != (written.corrected is None):
            unread += 1  # a correction that repeats the step has no verdict to learn
        elif (said.corrected is None) != step.right:
            differ.append(text)
        elif policy is None or await _helps(step, said, config, policy, f"{key}/{i}"):
            agree.append(text)
        else:
            useless += 1
    failed = counted.failures.total()
    return Criticised(tuple(dict.fromkeys(agree)), tuple(dict.fromkeys(differ)), unread - failed, useless, failed)


async def _helps(step: LabelledStep, said: StepCritique, config: CriticRowsConfig, policy: Policy, key: str) -> bool:
    """Whether solutions that go on from the correction are right often enough. A right step needs no correction."""
    if said.corrected is None:
        return True
    asked = policy, step.problem, step.steps[:-1], said.corrected, config.refinements, key
    share = await right_refinements(*asked, config.seed, config.max_tokens)
    return share is not None and share >= config.helped


def sampled_rows(
    step: LabelledStep, said: Criticised, rows: str, inputs: InputBuilder, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """The kept critiques or the pairs of a step."""
    counts["right_steps" if step.right else "wrong_steps"] += 1
    counts["unread_critiques"] += said.unread
    counts["failed_critiques"] += said.failed
    counts["critiques_that_did_not_help"] += said.useless
    counts["critiques_that_agree"] += len(said.agree)
    counts["critiques_that_differ"] += len(said.differ)
    shown = None
    if rows == "kept":
        for text in said.agree:
            shown = shown or _asked(step, inputs)
            yield {**shown, "completion": [trl_turn("assistant", text)]}
        return
    for chosen, rejected in zip(said.agree, said.differ, strict=False):
        shown = shown or _asked(step, inputs)
        counts["pairs_of_right_steps" if step.right else "pairs_of_wrong_steps"] += 1
        yield {
            **shown,
            "chosen": [trl_turn("assistant", chosen)],
            "rejected": [trl_turn("assistant", rejected)],
        }


def prompt_rows(steps: Sequence[LabelledStep], inputs: InputBuilder, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """As many right as wrong steps of a problem: a critic that sees more of one class learns to give every step that
    verdict."""
    classes = [[step for step in steps if step.right is right] for right in (True, False)]
    counts["right_steps"] += len(classes[0])
    counts["wrong_steps"] += len(classes[1])
    for step in chain.from_iterable(zip(*classes, strict=False)):
        problem = step.problem
        known = {name: getattr(problem, name) for name in ("id", "task", "question", "answer", "answer_type")}
        meta = {"choices": list(choices)} if (choices := choices_of(problem)) else {}
        yield {
            **_asked(step, inputs),
            "right": step.right,
            "problem": json.dumps({**known, "meta": meta, "images": len(problem.images)}),
            "steps": json.dumps([to_json(one) for one in step.steps]),
        }


def _asked(step: LabelledStep, inputs: InputBuilder) -> dict[str, Any]:
    """The columns `images` and `prompt` of a step and the question about it."""
    prompt, images = trl_turns(step.problem, step.steps, inputs, inputs.config.critiques.question)
    return {"images": images, "prompt": prompt}
