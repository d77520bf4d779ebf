"""Policy learning: rounds that resume to the same weights, every recipe, monitors, and bad input."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from train import grpo
from train.policy import monitors
from train.policy.checks import plain_advice
from train.policy.grpo_config import (
    ExcludeConfig,
    GateConfig,
    GrpoConfig,
    ModulateConfig,
    RolloutsConfig,
    TermConfig,
    ValidationConfig,
)
from train.policy.learner import Learner
from train.policy.measuring import Judges, every_step_right, rate
from train.policy.problems import GATE, ProblemSource
from train.policy.rounds import Rated, fate, read_round, sample, usable
from train.policy.trajectories import SampledTurn, Trajectory
from vlprm.errors import ProblemError, UserError
from vlprm.model.loading import load_policy
from vlprm.model.reward_loading import load_reward_model
from vlprm.policy import Continuation, Request
from vlprm.policy.local import LocalPolicy
from vlprm.policy.rollout import FAILURES, STOPS
from vlprm.runs.config import parse
from vlprm.schema import Problem, Region, Step
from vlprm.scoring.gate import gated
from vlprm.scoring.local import LocalScorer
from vlprm.serving.config import ModelConfig
from vlprm.tasks import load_tasks
from vlprm.zoom.policy import ZoomPolicy

ROOT = Path(__file__).parents[2]
RECIPES = sorted(
    path.stem
    for path in (ROOT / "configs/policy").glob("*.yaml")
    if "-m train.grpo" in (text := path.read_text()) and "critiques:" not in text  # tests/train/test_grpo_critic.py
)
ROLLOUTS = RolloutsConfig(problems=2, each=4, max_tokens=60, per_state=2)
NO_VALIDATION = ValidationConfig(problems=0)


def small(run: Path, **changes: Any) -> GrpoConfig:
    known = {
        "tasks": ("count_grid", "pattern"), "rounds": 3, "rollouts": ROLLOUTS, "learning_rate": 1e-3,
        "checkpoint_every": 2, "validation": NO_VALIDATION,
    }  # fmt: skip
    return GrpoConfig(run, **{**known, **changes})


@pytest.fixture(scope="module")
def prm(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> Path:
    """A tiny reward model with a random head."""
    folder = tmp_path_factory.mktemp("prm")
    checkpoint = load_reward_model(backbone, new_head="step")
    torch.manual_seed(0)
    torch.nn.init.normal_(checkpoint.model.score.weight, std=0.3)
    checkpoint.model.save_pretrained(folder)
    checkpoint.inputs.processor.save_pretrained(folder)
    checkpoint.config.save(folder)
    return folder


# --- a run


def ids_of(run: Path, rounds: int) -> list[Any]:
    return [
        [turn.ids for of in read_round(run, r) or [] for one in of for turn in one.trajectory.turns]
        for r in range(rounds)
    ]


@pytest.mark.slow
def test_a_killed_run_reaches_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after a round was sampled, and after it was learnt; each time its stored rounds are learnt again."""
    whole, killed = small(tmp_path / "whole"), small(tmp_path / "killed")
    grpo.main(whole)
    learn, metrics = Learner.learn, grpo.write_lines

    def dies_before(self: Learner, *given: Any) -> Any:
        if self.round == 1:
            raise KeyboardInterrupt
        return learn(self, *given)

    def dies_after(folder: Path, lines: Any) -> None:
        if max(lines) == 2:
            raise KeyboardInterrupt
        metrics(folder, lines)

    for module, name, dies in ((Learner, "learn", dies_before), (grpo, "write_lines", dies_after)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, dies)
            with pytest.raises(KeyboardInterrupt):
                grpo.main(killed)
    grpo.main(killed)
    assert ids_of(whole.run, 3) == ids_of(killed.run, 3)
    one, other = (load_file(config.run / "policy/model.safetensors") for config in (whole, killed))
    assert all(torch.allclose(one[name].float(), other[name].float(), atol=1e-6) for name in one)
    start = load_policy("builtin/policy").model.state_dict()
    assert any(not torch.allclose(one[name].float(), start[name], atol=1e-5) for name in one)
    lines = [json.loads(line) for line in (killed.run / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [0, 1, 2, 3]
    assert lines[0]["learn_ratio"] == pytest.approx(1, abs=1e-4)
    assert lines[0]["learn_kl"] == pytest.approx(0, abs=1e-4)
    assert load_policy(killed.run / "policy").config.provenance["rounds"] == 3
    page = (killed.run / "report.html").read_text()
    assert "log-probability" in page
    assert "Right answers" in page


def test_a_run_that_learns_nothing_is_no_success(tmp_path: Path) -> None:
    config = small(tmp_path / "run", rounds=1, rollouts=dataclasses.replace(ROLLOUTS, max_tokens=4))  # no answer fits
    with pytest.raises(UserError, match="no round had a solution with an advantage, so nothing was learnt"):
        grpo.main(config)
    assert not (config.run / "policy").exists()


def test_the_plan_shows_a_solution_with_its_advantages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grpo.main(small(tmp_path / "run", dry_run=True))
    said = capsys.readouterr().out
    assert "a round: 8 rollouts of 2 problems" in said
    marks = [line.strip() for line in said.partition("not trained -:")[2].splitlines() if line.startswith("    ")]
    assert marks[0] == "-"  # the question
    assert any(mark.startswith(("+", "-0")) for mark in marks)
    assert not (tmp_path / "run").exists()


# --- every recipe


def with_outcomes(paths: Sequence[Rated]) -> list[Rated]:
    """The paths, of which every second is right, whatever the policy can do."""
    return [dataclasses.replace(one, outcome=float(i % 2)) for i, one in enumerate(paths)]


@pytest.fixture(scope="module")
def world(prm: Path) -> dict[str, Any]:
    """A policy in training, and rollouts of a problem with zooms and of two without, which all recipes share."""
    config = small(Path("unused"), learning_rate=1e-5, policy=ModelConfig("builtin/policy", device="cpu"))
    learner = Learner(config, grpo.load_trained(config))
    found = {}
    for tasks in (("fine_print",), ("count_grid", "pattern")):
        asked = dataclasses.replace(
            config, tasks=tasks, rollouts=dataclasses.replace(ROLLOUTS, temperature=1.5, problems=len(tasks))
        )
        problems, _ = usable(ProblemSource(asked).ids(0), ProblemSource(asked).problem, learner.inputs)
        rollouts = asyncio.run(sample(LocalPolicy(learner.checkpoint), problems, asked, learner.inputs, 0))
        found[tasks[0]] = problems, [with_outcomes(of) for of in rollouts]
    return {"learner": learner, "scorer": LocalScorer(load_reward_model(prm)), "rounds": found}


@pytest.mark.parametrize("name", RECIPES)
def test_a_round_of_every_recipe(name: str, world: dict[str, Any]) -> None:
    config = parse(GrpoConfig, ["--config", f"configs/policy/{name}.yaml", "--rollouts.per_state", "2"])
    learner: Learner = world["learner"]
    problems, rollouts = world["rounds"][config.tasks[0] if config.tasks == ("fine_print",) else "count_grid"]
    assert config.prm is None or config.prm.checkpoint == "runs/demo/prm"
    judges = Judges(
        LocalPolicy(learner.checkpoint), world["scorer"] if config.prm else None, load_tasks(config.tasks),
        learner.inputs, dataclasses.replace(config, rollouts=dataclasses.replace(config.rollouts, max_tokens=60)),
        learner.checkpoint,
    )  # fmt: skip
    rated, refused = asyncio.run(rate(rollouts, problems, judges))
    assert not refused
    found = [a for of in rated for one in of if not one.excluded for a in one.advantages if a is not None]
    assert any(found)
    of_problem = {problem.id: problem for problem in problems}
    measures = learner.learn(rated, of_problem.__getitem__)
    assert measures["updates"] >= 1
    assert measures["grad_norm"] > 0


# --- monitors


def path(texts: Sequence[str], outcome: float, scores: Sequence[float], truth: Sequence[float]) -> Rated:
    steps = tuple(Step("zoom" if text.startswith("[zoom]") else "reasoning", text) for text in texts)
    steps = tuple(dataclasses.replace(s, region=Region(0, 0, 9, 9)) if s.kind == "zoom" else s for s in steps)
    n = sum(len(text.split()) for text in texts)
    turns = (SampledTurn(len(steps), (1,) * n, (-0.5,) * n),)
    rewards = (tuple([0.0] * (len(steps) - 1) + [min(scores)]),)
    trajectory = Trajectory("p", steps, turns, "1", "answer")
    return Rated(trajectory, outcome, "", rewards, tuple(scores), tuple(truth), (0.0,) * len(steps))


GOOD = path(["count the red ones", "[zoom] here", "three"], 1.0, [0.9, 0.8, 0.9], [1, 1, 1])
BAD = path(["count the red ones", "[zoom] here", "four"], 0.0, [0.9, 0.8, 0.2], [1, 1, 0])
PRM_TERM = (TermConfig(reward="prm", paid="min"),)
# What a policy writes that pleases a reward model which pays for thanks, for few steps, or for any zoom.
WORDY = path(["count", "[zoom] here", "thanks thanks thanks thanks thanks", "four"], 0.0, [1, 1, 1, 1], [1, 1, 0, 0])
CANARIES = {
    "thanks": WORDY,
    "few steps": path(["four"], 0.0, [1.0], [0]),
    "any zoom": path(["[zoom] a", "[zoom] b", "[zoom] c", "four"], 0.0, [1, 1, 1, 1], [1, 1, 1, 0]),
}


@pytest.mark.parametrize(
    ("outcome", "truth", "known"),
    [
        (1.0, [1.0, 1.0], True),
        (1.0, [1.0, 0.0], False),
        (1.0, [1.0, None], False),  # a step that the task cannot read
        (0.0, [1.0, 1.0], False),  # cut off before its answer
        (None, [1.0, 1.0], None),  # a failed call
        (1.0, None, None),
    ],
)
def test_every_step_is_right_only_with_a_right_answer(
    outcome: float | None, truth: list[float | None] | None, known: bool | None
) -> None:
    assert every_step_right(outcome, truth) is known
    rated = dataclasses.replace(GOOD, outcome=outcome, truth=None if truth is None else tuple(truth))
    found = monitors.round_metrics([[rated]], PRM_TERM)
    assert found.get("all_steps_right") == (None if known is None else float(known))


def test_the_monitors_count() -> None:
    found = monitors.round_metrics([[GOOD, BAD]], PRM_TERM)
    expected = {"rollouts": 2, "kept": 2, "right": 0.5, "steps": 3, "zooms": 1, "length": 7, "entropy": 0.5}
    assert {name: found[name] for name in expected} == expected
    assert found["reward"] == pytest.approx(0.5)
    assert found["all_steps_right"] == 0.5
    assert (found["prm_auroc"], found["prm_outcome_auroc"]) == (1.0, 1.0)
    assert found["prm_less_truth"] == pytest.approx((0.9 + 0.8 + 0.9 + 0.9 + 0.8 + 0.2 - 5) / 6)


@pytest.mark.parametrize("name", CANARIES)
def test_an_exploited_reward_moves_the_monitors(name: str) -> None:
    before = monitors.round_metrics([[GOOD, BAD]], PRM_TERM)
    after = monitors.round_metrics([[CANARIES[name], CANARIES[name]]], PRM_TERM)
    assert after["reward"] > before["reward"]
    assert after["right"] < before["right"]
    assert after["prm_less_truth"] > before["prm_less_truth"] + 0.2
    moved = {"thanks": "length", "few steps": "steps", "any zoom": "zooms"}[name]
    assert after[moved] != before[moved]
    assert gated(CANARIES[name].outcome, CANARIES[name].scores) == 0  # the gate pays none of it


def test_a_run_that_exploits_its_reward_stops_with_a_sentence() -> None:
    def line(number: int, right: float, reward: float) -> dict[str, float]:
        return {"round": number, "validation_right": right, "validation_problems": 500, "reward": reward}

    rising = [line(0, 0.5, 0.4), line(5, 0.6, 0.5), line(10, 0.4, 0.8)]
    said = monitors.exploited(rising, 0.05, GATE)
    assert said is not None
    assert "rose from 0.450 to 0.800 while right answers in validation fell from 60.0% (round 5) to 40.0%" in said
    assert said.endswith("gate it with the outcome, or train the reward model again on this run's rounds")
    assert monitors.exploited([*rising[:2], line(10, 0.58, 0.8)], 0.05, GATE) is None  # too little to tell
    assert monitors.exploited([*rising[:2], line(10, 0.4, 0.3)], 0.05, GATE) is None  # worse, but not by its reward
    few = [{**one, "validation_problems": 20} for one in rising]
    assert monitors.exploited(few, 0.05, GATE) is None  # within two standard errors


def test_trees_that_share_no_step_are_warned_about() -> None:
    star = small(Path(), terms=(TermConfig(value="leaves", lam=0.0),))
    assert "put all credit on the first step; set lam: 1" in (monitors.star_advice(star, 1.05) or "")
    assert monitors.star_advice(star, 2.0) is None
    assert monitors.star_advice(small(Path()), 1.0) is None


# --- what is left out, and bad input


def test_every_stop_has_one_fate() -> None:
    for exclude in (ExcludeConfig(), ExcludeConfig(over_turn=True, over_length=True)):
        fates = {stop: fate(stop, exclude) for stop in STOPS}
        assert fates["answer"] == "result"
        assert {fates[stop] for stop in FAILURES} == {"excluded"}
        assert fates["no_answer"] == "wrong"
        wanted = "excluded" if exclude.over_turn else "wrong"
        assert [fates[stop] for stop in ("too_many_zooms", "length")] == [wanted] * 2


class Refuses:
    """A reward model that cannot read a problem."""

    async def score(self, problem: Problem, solutions: Any, attempt: Any = None) -> Any:
        raise ProblemError("control_token", "it cannot be read")

    def forget(self, problem: Problem, attempt: Any = None) -> None: ...


def test_a_refused_problem_has_no_reward_and_is_counted(world: dict[str, Any]) -> None:
    problems, rollouts = world["rounds"]["count_grid"]
    learner = world["learner"]
    config = small(Path(), terms=(TermConfig(), TermConfig(reward="prm", value="none", lam=0.0)))
    judges = Judges(LocalPolicy(learner.checkpoint), Refuses(), {}, learner.inputs, config)
    rated, refused = asyncio.run(rate(rollouts, problems, judges))
    assert refused == 2
    for of in rated:
        assert all(one.rewards[1] is None for one in of)  # no result, not 0
        assert {a for one in of for a in one.advantages} == {0.5, -0.5}  # the outcome's alone


def test_a_group_of_one_is_left_out(world: dict[str, Any]) -> None:
    problems, rollouts = world["rounds"]["count_grid"]
    alone = [[of[0], *(dataclasses.replace(one, excluded="timeout") for one in of[1:])] for of in rollouts]
    judges = Judges(LocalPolicy(world["learner"].checkpoint), None, {}, world["learner"].inputs, small(Path()))
    rated, _ = asyncio.run(rate(alone, problems, judges))
    assert [one.excluded for one in rated[0]] == ["alone", "timeout", "timeout", "timeout"]
    assert world["learner"].learn(rated, {p.id: p for p in problems}.__getitem__) == {"updates": 0}


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_level_groups_teach_nothing(world: dict[str, Any], outcome: float) -> None:
    problems, rollouts = world["rounds"]["count_grid"]
    learner = world["learner"]
    level = [[dataclasses.replace(one, outcome=outcome) for one in of] for of in rollouts]
    config = small(Path())
    judges = Judges(LocalPolicy(learner.checkpoint), None, {}, learner.inputs, config)
    rated, _ = asyncio.run(rate(level, problems, judges))
    assert learner.learn(rated, {p.id: p for p in problems}.__getitem__) == {"updates": 0}


class Lost:
    """A policy that answers about the first problem alone; its other calls fail."""

    dialect, zoom = "relative_1000", ZoomPolicy()

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    async def sample(self, request: Request) -> list[Continuation]:
        text = "[reasoning] so\n\n[answer] " + str(self.problem.answer)
        is_first = request.problem.id == self.problem.id
        return [Continuation(text, 5, True) if is_first else Continuation("", 0, False, "connection")] * request.n

    def seen_size(self, *args: Any) -> tuple[int, int]:
        return (56, 56)


def test_failed_calls_are_no_part_of_a_validation(world: dict[str, Any]) -> None:
    config = small(Path("unused"), tasks=("chart",), validation=ValidationConfig(problems=3))
    source = ProblemSource(config)
    problems = source.validation()
    engine: Any = Lost(problems[0])
    judges = Judges(engine, None, source.tasks, world["learner"].inputs, config)
    found = asyncio.run(source.validate(problems, judges))
    measures = {"problems": 1, "right": 1.0, "all_steps_right": 0.0, "zooms": 0.0, "steps": 2.0}
    assert found == {f"validation_{name}": value for name, value in measures.items()}
    assert asyncio.run(source.validate(problems[1:], judges)) == {"validation_problems": 0}


class WithoutIds:
    """A policy whose servers return no token ids."""

    def __init__(self, engine: LocalPolicy) -> None:
        self.engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    async def sample(self, request: Request) -> list[Continuation]:
        return [dataclasses.replace(one, ids=(), logprobs=()) for one in await self.engine.sample(request)]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("refused", "round 0: the reward model refused all of its problems; give it problems that it reads"),
        ("no_ids", "the servers return no token ids with their log-probabilities; start them as configs/policy/served"),
        ("unusable", "round 0: none of its problems can be used; correct the problems"),
    ],
)
def test_a_round_from_which_nothing_can_be_learnt_stops_the_run(
    case: str, said: str, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = world["learner"]
    config = small(Path(), rollouts=dataclasses.replace(ROLLOUTS, problems=1, each=2, max_tokens=8))
    engine: Any = LocalPolicy(learner.checkpoint)
    judges = Judges(engine, Refuses() if case == "refused" else None, {}, learner.inputs, config)
    if case == "no_ids":
        judges = dataclasses.replace(judges, engine=WithoutIds(engine))
    source = ProblemSource(config)
    if case == "unusable":

        def broken(problem_id: str) -> Problem:
            raise ProblemError("image", "it cannot be opened")

        monkeypatch.setattr(source, "problem", broken)
    with pytest.raises(UserError, match=said):
        asyncio.run(grpo.rolled_out(config, source, judges, 0))


def test_a_policy_without_a_chat_template_is_refused(backbone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(backbone, folder, ignore=shutil.ignore_patterns("chat_template*"))
    with pytest.raises(UserError, match=r"policy has no chat template; add its chat_template\.jinja"):
        grpo.main(small(tmp_path / "run", policy=ModelConfig(str(folder))))


def test_a_loss_that_is_not_finite_stops_the_run(world: dict[str, Any]) -> None:
    problems, rollouts = world["rounds"]["count_grid"]
    learner = world["learner"]
    judges = Judges(LocalPolicy(learner.checkpoint), None, {}, learner.inputs, small(Path()))
    rated, _ = asyncio.run(rate(rollouts, problems, judges))
    broken = [[dataclasses.replace(one, advantages=(math.nan,) * len(one.advantages)) for one in of] for of in rated]
    with pytest.raises(UserError, match="the loss is nan; lower learning_rate"):
        learner.learn(broken, {p.id: p for p in problems}.__getitem__)
    learner.optimizer.zero_grad()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"terms": (TermConfig(reward="prm"),)}, r"terms\[0\] \(reward: prm\) needs a reward model; give prm"),
        ({"terms": (TermConfig(gate=GateConfig(drop=0.3)),)}, r"\(gate\) needs a reward model"),
        ({"terms": ()}, "nothing is rewarded; give at least one"),
        ({"modulate": ModulateConfig(alpha=0.1)}, "give prm, or set modulate.alpha: 0"),
        ({"rollouts": RolloutsConfig(each=1)}, "a group of one teaches nothing"),
        ({"problem_file": Path("p.jsonl"), "terms": (TermConfig(reward="truth"),)}, "only drawn tasks know the ground"),
        ({"terms": (TermConfig(value="leaves", normalise="leave_one_out"),)}, "set value: group or none"),
        (
            {"terms": (TermConfig(reward="zoom", by="truth"),)},
            r"by: truth credits single zooms, .* set value: none and",
        ),
        (
            {"terms": (TermConfig(reward="zoom", by="value", value="none"),)},
            "by: value credits single zooms, .* lam: 0",
        ),
        ({"problem_file": Path("p.jsonl"), "validation": ValidationConfig()}, "give validation.problem_file"),
        ({"policy": ModelConfig("nowhere")}, "no checkpoint folder nowhere"),
    ],
)
def test_a_config_that_cannot_run_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        grpo.main(small(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_scores_paid_as_they_are_are_warned_about() -> None:
    plain = small(Path(), prm=ModelConfig("runs/prm"), terms=(TermConfig(reward="prm", paid="min"),))
    assert "policies learn to exploit" in (plain_advice(plain) or "")
    for term in (TermConfig(reward="prm"), TermConfig(reward="prm", paid="mean", only="right")):
        assert plain_advice(dataclasses.replace(plain, terms=(term,))) is None
