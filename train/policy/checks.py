"""Refuse a config of policy learning that contradicts itself or cannot be run, before the run folder is opened."""

from __future__ import annotations

import logging

from train.policy.grpo_config import CritiquesConfig, ExcludeConfig, GrpoConfig, TermConfig
from train.policy.processes import refuse_shards
from train.policy.rewards import MEASURED_CREDITS
from train.policy.shaping import PLAIN
from vlprm.errors import UserError
from vlprm.policy.critic_reward import check_weights
from vlprm.scoring.open import refuse_untaught

ZOOM_STEPS = MEASURED_CREDITS | {"truth"}  # credits of single zooms; the others are rewards of a whole solution
log = logging.getLogger(__name__)


def check_grpo(config: GrpoConfig) -> None:
    """UserError for the first conflict in a config, with the fix."""
    refuse_shards()
    if not config.terms:
        raise UserError("terms is empty, so nothing is rewarded; give at least one")
    if config.rollouts.each < 2:
        raise UserError("rollouts.each is 1, and a group of one teaches nothing; set it to 2 or more")
    if config.rollouts.forks.at == "drop" and config.prm is None:
        raise UserError(
            "rollouts.forks.at: drop forks where the reward model's score falls; give prm, or set at: entropy"
        )
    for at, term in enumerate(config.terms):
        _check_term(config, term, f"terms[{at}]")
    if config.modulate.alpha and config.prm is None:
        raise UserError("modulate lowers the steps that a reward model finds wrong; give prm, or set modulate.alpha: 0")
    if config.critiques is not None:
        _check_critic(config, config.critiques)
    _check_validation(config)
    if warning := plain_advice(config):
        log.warning("%s", warning)


def _check_critic(config: GrpoConfig, asked: CritiquesConfig) -> None:
    """UserError for what a critic has no use for."""
    if all(term.reward != "critic" for term in config.terms):
        raise UserError("terms pay no verdict, so a critic learns nothing; add one with reward: critic")
    check_weights(asked.judgement, asked.refinement, asked.policy is not None)
    of_solutions = {
        "prm": config.prm is not None,
        "problem_file": config.problem_file is not None,
        "validation.problem_file": config.validation.problem_file is not None,
        "rollouts.forks": config.rollouts.forks.at != "none",
        "exclude": config.exclude != ExcludeConfig(),
    }
    if found := next((name for name, is_set in of_solutions.items() if is_set), ""):
        raise UserError(f"critiques train a critic, which {found} is not made for; remove {found}, or critiques")
    for at, term in enumerate(config.terms):
        if term.value not in ("none", "group"):
            raise UserError(f"terms[{at}]: a critique has no states within it; set value: group or none")
    refuse_untaught(config.policy)


def plain_advice(config: GrpoConfig) -> str | None:
    """A warning if a reward model is paid as a plain scalar on all groups."""
    plain = [t for t in config.terms if t.reward == "prm" and t.paid in PLAIN and t.only == "all" and t.lam]
    if not plain:
        return None
    return (
        f"the scores of {config.prm and config.prm.checkpoint} are paid as they are ({plain[0].paid}), which policies"
        " learn to exploit; prefer paid: progress, softmin or ranks, only: level or right, or gate the outcome"
    )


def _check_term(config: GrpoConfig, term: TermConfig, name: str) -> None:
    if config.critiques is None and term.reward == "critic":
        raise UserError(f"{name} pays critiques, and there are none; give critiques.rows")
    if config.critiques is not None and term.reward not in ("critic", "format"):
        raise UserError(f"{name}: reward: {term.reward} pays solutions, not critiques; set reward: critic")
    needs_prm = {
        f"reward: {term.reward}": term.reward == "prm",
        "by: prm": term.reward == "zoom" and term.by == "prm",
        "gate": term.gate.drop > 0,
        "value: prm": term.value == "prm",
    }
    if config.prm is None and (found := next((what for what, needs in needs_prm.items() if needs), "")):
        raise UserError(f"{name} ({found}) needs a reward model; give prm")
    if term.gate.drop and term.reward != "outcome":
        raise UserError(f"{name}: only the outcome has a gate, not {term.reward}; remove gate, or set reward: outcome")
    knows_truth = term.reward == "truth" or (term.reward == "zoom" and term.by == "truth")
    if knows_truth and config.problem_file is not None:
        raise UserError(f"{name}: only drawn tasks know the ground truth of steps; use tasks, or another reward")
    if term.reward == "zoom" and term.by in ZOOM_STEPS and (term.value, term.lam) != ("none", 0):
        raise UserError(
            f"{name}: by: {term.by} credits single zooms, and other steps have no such reward to sum over; set"
            " value: none and lam: 0"
        )
    if term.normalise == "leave_one_out" and term.value not in ("none", "group"):
        raise UserError(
            f"{name}: leave_one_out takes the baseline from the other solutions, but value: {term.value} is one of its"
            " own; set value: group or none"
        )


def _check_validation(config: GrpoConfig) -> None:
    wanted = config.validation
    if config.problem_file is not None and wanted.problems and wanted.problem_file is None:
        raise UserError(
            "a run on a problem file needs its own problems for validation; give validation.problem_file, or set"
            " validation.problems: 0"
        )
