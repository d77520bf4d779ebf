"""Judging a perception step by reading the image again: what the readers see, and when they give no verdict."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from data_synth.judges.asked import reread, reread_tree
from data_synth.judges.config import SamplingConfig
from data_synth.judges.model import Judged
from vlprm.policy import Continuation, Request
from vlprm.schema import Problem, StepLabel, StepTree, TreeNode
from vlprm.steps import parse_step
from vlprm.tasks import TASKS
from vlprm.zoom.policy import ZoomPolicy

PROBLEM = TASKS["chart"].problem("test", 0)
CLAIMS = ("[perception] A is 7", "[perception] A is 5", "[reasoning] 7 + 2 = 9", "[answer] 9")


class Readers:
    """Makes the question of a step, and reads what it is told to read."""

    dialect = "relative_1000"
    zoom = ZoomPolicy()

    def __init__(self, reads: Callable[[int], str], question: str = "How tall is A?") -> None:
        self.reads, self.question, self.asked = reads, question, list[Request]()

    def seen_size(self, problem: Problem, shown: object = 0) -> tuple[int, int]:
        raise AssertionError

    async def sample(self, request: Request) -> list[Continuation]:
        self.asked.append(request)
        made = [self._one(request, i) for i in range(request.n)]
        return [m if isinstance(m, Continuation) else Continuation(m, 5, True) for m in made]

    def _one(self, request: Request, i: int) -> Any:
        if request.problem.images:
            return json.dumps({"answer": self.reads(i)}) if self.reads(i) != "cut" else Continuation("{", 5, False)
        (said,) = re.findall(r"A is (\d+)", request.problem.question)
        return json.dumps({"question": self.question, "answer": said, "type": "integer"})


def judged(engine: Readers, samples: int = 3) -> Judged:
    parents = [-1, -1, 0, 2]
    nodes = tuple(TreeNode(parse_step(t), p, StepLabel(1, 1, 1)) for t, p in zip(CLAIMS, parents, strict=True))
    tree = StepTree(PROBLEM.id, nodes, ((3, "9"), (1, "5")))
    return asyncio.run(reread_tree(PROBLEM, tree, engine, SamplingConfig(samples=samples), seed=0))  # type: ignore[arg-type]


def test_the_reader_of_the_image_never_sees_what_a_step_says() -> None:
    engine = Readers(lambda i: "7")
    result = judged(engine)
    first, second, *rest = result.verdicts
    assert first is not None
    assert second is not None
    assert (first.correct, second.correct, second.error_kind) == (True, False, "perception")
    assert second.reason == "How tall is A? 7"
    assert rest == [None, None]  # what is derived is not read
    seen = [request for request in engine.asked if request.problem.images]
    assert len(seen) == 1, "two steps with one question are answered by one reading"
    assert seen[0].n == 3
    assert seen[0].steps == ()
    for claim in CLAIMS:
        assert claim not in seen[0].problem.question
    assert not re.search(r"\b[57]\b", seen[0].problem.question)
    assert seen[0].problem.meta == {}
    assert all(not request.problem.images for request in engine.asked if "A is" in request.problem.question)


@pytest.mark.parametrize(
    ("reads", "question", "cause"),
    [
        (lambda i: "7" if i else "5", "How tall is A?", "unsure"),
        (lambda i: "8" if i else "9", "How tall is A?", "unsure"),
        (lambda i: "cut", "How tall is A?", "length"),
        (lambda i: "tall", "How tall is A?", "not_comparable"),
        (lambda i: "7", " ", "not_comparable"),
        (lambda i: "7", "Is A 7 or 5?", "names_the_answer"),
    ],
)
def test_without_a_clear_answer_there_is_no_verdict(reads: Callable[[int], str], question: str, cause: str) -> None:
    result = judged(Readers(reads, question))
    assert result.verdicts == [None] * len(CLAIMS)
    assert result.failures[cause] > 0


def test_a_simulated_reader_errs_by_the_fact_and_not_by_what_was_said() -> None:
    family = TASKS["chart"]
    missed = 0
    for index in range(80):
        problem = family.problem("test", index, drawn=False)
        steps = [parse_step(text) for text in family.solve(problem.meta["scene"], lambda k, c, truth, near: truth)]
        slips = [
            parse_step(t) for t in family.solve(problem.meta["scene"], lambda k, c, truth, near: [*near, truth][0])
        ]
        right, wrong = (reread(family, problem, of, 0.3, 1) for of in (steps, slips))
        for one, other in zip(right, wrong, strict=True):
            assert (one is None) == (other is None)
            if one and other:
                missed += not one.correct
                assert one.correct <= (not other.correct), "who reads a fact right sees every error about it"
    assert missed > 10
