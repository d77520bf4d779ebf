"""Rules on counts, by hand: solutions through a step, progress to a step, whole solutions."""

from __future__ import annotations

import pytest

from vlprm.labels.fusion import RULES, rule_calls_wrong
from vlprm.labels.judge_reliability import TreeEvidence
from vlprm.labels.sources import Reliability
from vlprm.schema import StepLabel, Verdict

YES, NO = {"judge": Verdict(True)}, {"judge": Verdict(False, "reasoning")}
ROOT = StepLabel(5, 10, 10)


def tree(labels: list[StepLabel], parents: list[int], root: StepLabel = ROOT) -> TreeEvidence:
    return TreeEvidence(labels, ["reasoning"] * len(labels), parents, root)


def targets(rule: str, evidence: TreeEvidence) -> list[float | None]:
    return RULES[rule](evidence, Reliability())  # type: ignore[index]


def test_the_outcome_of_a_step_is_the_share_of_right_solutions_through_it() -> None:
    """Step 0 has three solutions: right, wrong, and one without a result, which counts in no denominator."""
    right, wrong, no_result = StepLabel(3, 3, 3), StepLabel(0, 1, 1), StepLabel(0, 0, 1)
    evidence = tree([StepLabel(9, 9, 9), right, wrong, no_result, no_result], [-1, 0, 0, 0, -1])
    assert targets("outcome", evidence) == [0.5, 1.0, 0.0, None, None]


@pytest.mark.parametrize(
    ("step", "parent", "target", "wrong"),
    [
        (StepLabel(4, 8, 8), StepLabel(4, 8, 8), 1.0, False),
        (StepLabel(8, 8, 8), StepLabel(4, 8, 8), 1.0, False),  # at most 1
        (StepLabel(4, 8, 8), StepLabel(5, 8, 8), 0.8, False),
        (StepLabel(3, 8, 8), StepLabel(4, 8, 8), 0.75, True),
        (StepLabel(0, 8, 8), StepLabel(4, 8, 8), 0.0, True),  # an exact zero is a target, not a gap
        (StepLabel(0, 8, 8), StepLabel(0, 8, 8), None, None),  # after an error there is no progress to lose
        (StepLabel(4, 8, 8), StepLabel(1, 1, 1), None, None),
        (StepLabel(2, 2, 2), StepLabel(4, 8, 8), None, None),
    ],
)
def test_progress_is_the_value_over_the_parents(
    step: StepLabel, parent: StepLabel, target: float | None, wrong: bool | None
) -> None:
    assert targets("relative", tree([step], [-1], parent)) == [target]
    assert (None if target is None else rule_calls_wrong("relative", target)) is wrong


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        ([StepLabel(3, 8, 8, YES), StepLabel(2, 4, 4, YES), StepLabel(1, 1, 1, YES)], [1.0, 1.0, 1.0]),
        ([StepLabel(3, 8, 8, YES), StepLabel(0, 4, 4, NO), StepLabel(0, 1, 1, YES)], [1.0, 0.0, 1.0]),
        ([StepLabel(3, 8, 8, YES), StepLabel(0, 4, 4, YES), StepLabel(0, 1, 1, NO)], None),  # other first errors
        ([StepLabel(3, 8, 8, NO), StepLabel(0, 4, 4, NO), StepLabel(0, 1, 1, NO)], None),
        ([StepLabel(3, 8, 8, YES), StepLabel(0, 2, 2, NO), StepLabel(0, 1, 1, NO)], None),  # too few rollouts
        ([StepLabel(3, 8, 8, YES), StepLabel(0, 4, 4), StepLabel(0, 1, 1, NO)], None),  # nobody judged it
        ([StepLabel(3, 8, 8, YES), StepLabel(2, 4, 4, YES), StepLabel(0, 0, 1, YES)], None),  # no result
        ([StepLabel(3, 8, 8, YES), StepLabel(2, 4, 4, YES), StepLabel(0, 1, 1, NO)], [1.0, 1.0, 0.0]),
    ],
)
def test_a_whole_solution_is_kept_if_counts_and_judge_find_the_same_first_error(
    labels: list[StepLabel], kept: list[float] | None
) -> None:
    assert targets("whole", tree(labels, [-1, 0, 1])) == (kept or [None] * 3)
