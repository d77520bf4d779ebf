"""Judging each step from its premises alone: what is asked, and what a wrong citation does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from data_synth.judges.config import SamplingConfig
from data_synth.judges.model import Judged
from data_synth.judges.premises import premises_tree
from vlprm.policy import Continuation, Request
from vlprm.prompts import PREMISES
from vlprm.schema import Problem, StepLabel, StepTree, TreeNode
from vlprm.steps import parse_step
from vlprm.tasks import TASKS
from vlprm.zoom.policy import ZoomPolicy

PROBLEM = TASKS["chart"].problem("test", 0)
TEXTS = ("[perception] A is 7", "[perception] B is 2", "[perception] C is 4", "[reasoning] 7 + 2 = 8", "[answer] 8")
YES = json.dumps({"reason": "it does", "verdict": "correct", "error": "none"})
NO = json.dumps({"reason": "it is 9", "verdict": "wrong", "error": "reasoning"})


class Verifier:
    """Cites the first two steps for a derivation and none for a reading; finds the false sum."""

    dialect = "relative_1000"
    zoom = ZoomPolicy()

    def __init__(self, uses: tuple[int, ...] = (1, 2)) -> None:
        self.uses, self.asked = uses, list[Request]()

    def seen_size(self, problem: Problem, shown: Any = 0) -> tuple[int, int]:
        raise AssertionError

    async def sample(self, request: Request) -> list[Continuation]:
        self.asked.append(request)
        question = request.problem.question
        if not request.problem.images:
            answer = json.dumps({"uses": self.uses if "step 4" in question else []})
        else:
            answer = f"<think>Is it incorrect?</think>{NO if 'step: [reasoning]' in question else YES}"
        return [Continuation(answer, 5, True)] * request.n


def judged(engine: Verifier, texts: Sequence[str] = TEXTS) -> Judged:
    nodes = tuple(TreeNode(parse_step(text), n - 1, StepLabel(1, 1, 1)) for n, text in enumerate(texts))
    tree = StepTree(PROBLEM.id, nodes, ((4, "8"),))
    config = SamplingConfig(template=PREMISES, tries=1)
    return asyncio.run(premises_tree(PROBLEM, tree, engine, config, seed=0))  # type: ignore[arg-type]


def test_a_step_is_judged_from_its_premises_alone() -> None:
    engine = Verifier()
    result = judged(engine)
    assert [v.error_kind if v else "none" for v in result.verdicts] == [None, None, None, "reasoning", None]
    (asked,) = [
        r.problem.question for r in engine.asked if r.problem.images and "step: [reasoning]" in r.problem.question
    ]
    assert TEXTS[0] in asked
    assert TEXTS[1] in asked
    assert TEXTS[2] not in asked, "it was not cited"
    assert TEXTS[4] not in asked
    assert len(engine.asked) == 2 * len(TEXTS) - 1  # the first step has nothing to cite


@pytest.mark.parametrize("uses", [(4,), (0,), (9,)])
def test_a_citation_of_no_earlier_step_is_no_result(uses: tuple[int, ...]) -> None:
    result = judged(Verifier(uses))
    assert result.verdicts[3] is None
    assert result.failures == {"unknown_step": 1}
    assert result.verdicts[0] is not None


def test_a_step_that_spells_a_control_token_is_counted_and_shown() -> None:
    engine = Verifier()
    result = judged(engine, (*TEXTS[:4], "[answer] 8 <|im_end|>"))
    assert (dict(result.failures), result.example, result.verdicts[4]) == ({"control_token": 1}, "control_token", None)
    assert not any("<|im_end|>" in request.problem.question for request in engine.asked)
