"""The rollouts of a critic in training: several critiques of each labelled step, and what each critique is worth.

A group is the critiques of one step. They share the problem, the steps up to that one and the question, which the
critic reads and did not sample, so a group is one packed tree like that of a problem's solutions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

from train.policy import processes
from train.policy.grpo_config import CritiquesConfig, GrpoConfig
from train.policy.measuring import Judges
from train.policy.monitors import verdict_shares
from train.policy.rounds import NO_IDS, Rated, Rollouts, in_epochs
from train.policy.trajectories import SampledTurn, Trajectory
from vlprm.data.row_file import TableFile
from vlprm.errors import UserError
from vlprm.policy import Continuation, Request, all_answers
from vlprm.policy.critic_reward import (
    LabelledStep,
    is_judged_right,
    labelled_step,
    refined_share,
    refuse_one_class,
    refuse_other_rows,
    worth,
)
from vlprm.policy.critique import RIGHT, parse_critique
from vlprm.schema import Problem, Step
from vlprm.tasks import Tasks

UNREAD, NO_REFINEMENT = "unread", "no_refinement"  # why a critique has no reward, besides stops
WRONG = "wrong"
LEARN_LESS = "raise critiques.judgement, or lower learning_rate"


class StepSource:
    """The steps that a critic criticises, by id, read from the rows of `train.critic_rows --rows prompts`. A step's
    problem has the step's id. UserError for other rows, rows of one class, or too few for a validation."""

    def __init__(self, config: GrpoConfig, asked: CritiquesConfig) -> None:
        self.advice = LEARN_LESS
        self.config = config
        self.tasks: Tasks = {}
        self.file = TableFile(asked.rows, "train.critic_rows --rows prompts")
        refuse_other_rows(self.file.columns, str(asked.rows))
        parts = [self.file.part(group, ("right", "problem")) for group in range(len(self.file.groups))]
        rows = [(row["right"], json.loads(row["problem"])["id"]) for part in parts for row in part]
        held_out = _last_problems([problem_id for _, problem_id in rows], config.validation.problems)
        ids = [f"{problem_id}/{row}" for row, (_, problem_id) in enumerate(rows)]
        self._places = {name: row for row, name in enumerate(ids)}
        self.learnt, self.held_out = (
            [name for name, (_, of) in zip(ids, rows, strict=True) if (of in held_out) is wanted]
            for wanted in (False, True)
        )
        if not self.learnt:
            raise UserError(
                f"{asked.rows} has {len(rows)} steps, and a validation on {config.validation.problems} leaves none to"
                " learn from; make more rows, or lower validation.problems"
            )
        learnt = [right for right, of in rows if of not in held_out]
        refuse_one_class(learnt, f"{len(learnt)} steps to learn from in {asked.rows}")

    def ids(self, round_number: int) -> list[str]:
        """The ids of a round's steps."""
        size = self.config.rollouts.problems
        return in_epochs(self.learnt, round_number * size, size, self.config.seed)

    def validation(self) -> list[Problem]:
        """The problems of the held-out steps."""
        return list(map(self.problem, self.held_out))

    def problem(self, step_id: str) -> Problem:
        """The problem of the step with this id."""
        return self.step(step_id).problem

    def step(self, step_id: str) -> LabelledStep:
        """The step with this id."""
        row = self.file.row(self._places[step_id])
        images = (image["bytes"] for image in row["images"])
        found = labelled_step(row["right"], row["problem"], row["steps"], images)
        return replace(found, problem=replace(found.problem, id=step_id))

    async def sample(self, problems: Sequence[Problem], judges: Judges, version: int) -> Rollouts:
        """The critiques of a round by critic `version`, each with what it is worth."""
        each = self.config.rollouts.each
        return await all_answers(
            _criticised(self.step(problem.id), each, f"round {version}", judges, version) for problem in problems
        )

    def refuse_useless(self, known: Rollouts, round_number: int) -> None:
        """UserError if no critique of a round can be read."""
        if {one.trajectory.answer for of in known for one in of} == {None}:
            raise UserError(
                f"round {round_number}: none of its {sum(map(len, known))} critiques can be read, so nothing is learnt;"
                " train the critic with loss.critique first (configs/demo/critic.yaml), or lower rollouts.temperature"
            )

    async def validate(self, problems: Sequence[Problem], judges: Judges) -> dict[str, float]:
        """Measures of one critique of each held-out step: how many can be read, and the share of right verdicts among
        them, also for right steps alone and for wrong steps alone."""
        if not problems:
            return {}
        by_judgement = replace(judges, refiner=None)  # only the verdict is looked at
        asked = [self.step(problem.id) for problem in processes.share(problems)]
        own = await all_answers(_criticised(step, 1, "validation", by_judgement, 0) for step in asked)
        found = [of[0] for of in processes.of_all(own)]
        read = [one.outcome for one in found if one.outcome is not None]
        shares = {"right": sum(read) / len(read) if read else math.nan, **verdict_shares(found)}
        known = {f"validation_{name}": value for name, value in shares.items() if not math.isnan(value)}
        return {"validation_problems": len(read), **known}


def _last_problems(problem_ids: Sequence[str], steps: int) -> set[str]:
    """The last problems that have at least this many steps together."""
    found: set[str] = set()
    for name in reversed(problem_ids):
        if name not in found and sum(one in found for one in problem_ids) >= steps:
            break
        found.add(name)
    return found


async def _criticised(step: LabelledStep, n: int, prefix: str, judges: Judges, version: int) -> list[Rated]:
    template, config = judges.inputs.config.critiques, judges.config
    request = Request(
        step.problem, step.steps, n, f"{prefix}/{step.problem.id}", config.seed,
        temperature=config.rollouts.temperature, max_tokens=template.max_tokens, asked=template.question, logprobs=True,
    )  # fmt: skip
    written = await judges.engine.sample(request)
    return await all_answers(
        rated_critique(step, one, f"{request.key}/{i}", judges, version) for i, one in enumerate(written)
    )


async def rated_critique(step: LabelledStep, written: Continuation, key: str, judges: Judges, version: int) -> Rated:
    """A critique with its outcome, whether its verdict is right, and its worth. A critique without a worth is left out,
    so it moves neither the weights nor its group's mean, unless a term pays its format."""
    asked, rollouts = judges.config.critiques, judges.config.rollouts
    assert asked is not None
    said = None if written.incomplete else parse_critique(written.text, judges.inputs.config.critiques)
    has_ids = bool(written.ids) and len(written.logprobs) == len(written.ids)
    path = Trajectory(
        step.problem.id,
        (Step("other", written.text.strip()),),
        (SampledTurn(1, written.ids, written.logprobs),) if has_ids else (),
        None if said is None else RIGHT if said.corrected is None else WRONG,
        written.incomplete or ("no_answer" if said is None else "answer"),
        version,
        about=step.steps,
    )
    if written.failure:
        return Rated(path, None, written.failure)
    outcome = None if said is None else float(is_judged_right(said, step.right))
    if not has_ids:
        return Rated(path, outcome, NO_IDS)
    refined = None
    if judges.refiner is not None:
        seed, tokens = judges.config.seed, rollouts.max_tokens
        refined = await refined_share(judges.refiner, step, said, rollouts.per_state, key, seed, tokens)
    found = worth(said, step.right, refined, asked.judgement, asked.refinement)
    if found is not None or any(term.reward == "format" for term in judges.config.terms):
        return Rated(path, outcome, worth=found)
    return Rated(path, outcome, written.incomplete or (UNREAD if said is None else NO_REFINEMENT))
