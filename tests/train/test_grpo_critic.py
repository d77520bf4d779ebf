"""A critic that learns from its own critiques: rewards, groups, updates, whole runs, and bad input."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Features
from safetensors.torch import load_file

from data_synth.search.rounds import problems_of
from tests.train.rollouts import COUNT, READ, ZOOM, grid_problem
from train import critic_rows, grpo
from train.policy.batches import policy_batch
from train.policy.config import PolicyLossConfig
from train.policy.critic_rows import FEATURES
from train.policy.critic_rows_config import CriticRowsConfig
from train.policy.critiques import StepSource, rated_critique
from train.policy.grpo_config import (
    CritiquesConfig,
    ExcludeConfig,
    ForksConfig,
    GrpoConfig,
    RolloutsConfig,
    TermConfig,
    ValidationConfig,
)
from train.policy.learner import Learner, rows_of
from train.policy.losses import sft_loss
from train.policy.measuring import Judges, rate
from train.policy.monitors import round_metrics
from train.policy.rounds import Rated, read_round
from train.policy.trajectories import SampledTurn, Trajectory, path_of
from vlprm.data.dataset import open_parquet, table_rows, write_parquet
from vlprm.errors import UserError
from vlprm.integrations.trl_critic import critic_reward
from vlprm.model.checkpoint_config import CheckpointConfig, load_checkpoint_config
from vlprm.model.inputs import InputBuilder
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.policy import Continuation, Request
from vlprm.policy.critic_reward import LabelledStep
from vlprm.policy.critique import critique_answer, critique_of
from vlprm.policy.local import LocalPolicy
from vlprm.runs.config import parse
from vlprm.schema import Problem, Step
from vlprm.scoring.open import open_critic
from vlprm.serving.config import ModelConfig
from vlprm.steps import parse_step

TERMS = (TermConfig(reward="critic"),)
ROLLOUTS = RolloutsConfig(problems=2, each=4, max_tokens=40, per_state=1)
INSTEAD = parse_step("[answer] 2")
UNREADABLE = "The step is right."


@pytest.fixture(scope="module")
def rows(dataset: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("rows") / "run"
    critic_rows.main(CriticRowsConfig(dataset=dataset, critic=ModelConfig(str(backbone)), run=run, rows="prompts"))
    return run / "prompts.parquet"


def small(run: Path, rows: Path, critic: Path, **changes: Any) -> GrpoConfig:
    known = {
        "policy": ModelConfig(str(critic), device="cpu"), "critiques": CritiquesConfig(rows), "terms": TERMS,
        "rounds": 2, "rollouts": ROLLOUTS, "learning_rate": 1e-3, "checkpoint_every": 1,
        "validation": ValidationConfig(problems=0),
    }  # fmt: skip
    return GrpoConfig(run, **{**known, **changes})


def texts_of(inputs: InputBuilder) -> tuple[str, str]:
    """What a critic writes after a step that it calls right, and one that it calls wrong."""
    said = (critique_of(INSTEAD), critique_of(INSTEAD, "reasoning", INSTEAD))
    return tuple(critique_answer(one, inputs.config.critiques) for one in said)  # type: ignore[return-value]


def written(inputs: InputBuilder, text: str, logprobs: Sequence[float] = ()) -> Continuation:
    ids = (*inputs.text.encode(text), inputs.end_of_turn)
    return Continuation(text, len(ids), True, ids=ids, logprobs=tuple(logprobs) or (-0.5,) * len(ids))


def critique(inputs: InputBuilder, step: LabelledStep, text: str) -> Rated:
    said = written(inputs, text)
    turn = SampledTurn(1, said.ids, said.logprobs)
    path = Trajectory(step.problem.id, (Step("other", text),), (turn,), None, "answer", about=step.steps)
    return Rated(path, None, advantages=(0.0,))


@pytest.fixture(scope="module")
def critic(rows: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that has learnt to write critiques whose verdicts are chance, as `train.prm` saves it."""
    folder = tmp_path_factory.mktemp("critic") / "critic"
    shutil.copytree(backbone, folder)
    dataclasses.replace(load_checkpoint_config(folder), provenance={"critiques": True}).save(folder)
    config = small(Path("unused"), rows, folder, learning_rate=3e-3)
    learner, source = Learner(config, grpo.load_trained(config)), StepSource(config, CritiquesConfig(rows))
    steps = list(map(source.step, source.learnt))
    taught = [
        row
        for step in steps
        for row in rows_of(
            [critique(learner.inputs, step, text) for text in texts_of(learner.inputs)], step.problem, learner.inputs
        )
    ]
    for start in range(200):
        batch = policy_batch([taught[(2 * start + k) % len(taught)] for k in range(2)], learner.inputs)
        loss, _ = sft_loss(learner.log_probabilities(learner.checkpoint, batch), batch, batch["totals"])
        loss.backward()  # type: ignore[no-untyped-call]
        learner.optimizer.step()
        learner.optimizer.zero_grad()
    learner.checkpoint.model.save_pretrained(folder)
    made = load_reward_model(folder, new_head="step")
    save_reward_model(made, folder, CheckpointConfig(head="step", provenance={"critiques": True}))
    return folder


@pytest.fixture
def config(rows: Path, critic: Path) -> GrpoConfig:
    return small(Path("unused"), rows, critic)


@pytest.fixture
def learner(config: GrpoConfig) -> Learner:
    return Learner(config, grpo.load_trained(config))


def source_of(config: GrpoConfig) -> StepSource:
    assert config.critiques is not None
    return StepSource(config, config.critiques)


def judges_of(config: GrpoConfig, learner: Learner, **changes: Any) -> Judges:
    return Judges(LocalPolicy(learner.checkpoint), None, {}, learner.inputs, config, learner.checkpoint, **changes)


def steps_by_label(source: StepSource) -> dict[bool, LabelledStep]:
    return {step.right: step for step in map(source.step, source.learnt)}


def rated_group(step: LabelledStep, texts: Sequence[str], judges: Judges) -> list[Rated]:
    """The critiques of a step that say this, with their advantages."""
    asked = [rated_critique(step, written(judges.inputs, text), "k", judges, 0) for text in texts]

    async def found() -> list[Rated]:
        sampled = [await one for one in asked]
        (group,), _ = await rate([sampled], [step.problem], judges)
        return group

    return asyncio.run(found())


# --- what a critique is paid


def test_a_critique_is_paid_what_trls_trainer_pays(
    config: GrpoConfig, learner: Learner, critic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right and wrong verdicts on a right and on a wrong step, a correction without an answer, and no critique."""
    brings = {"good": 0.75, "bad": 0.0, "lost": None}

    async def refinements(engine: Any, problem: Problem, before: Any, corrected: Step, *rest: Any) -> Any:
        return brings[corrected.text]

    monkeypatch.setattr("vlprm.policy.critic_reward.right_refinements", refinements)
    form = learner.inputs.config.critiques
    corrections = (None, *map(parse_step, brings))
    texts = [critique_answer(critique_of(INSTEAD, "reasoning", one), form) for one in corrections] + [UNREADABLE]
    source = source_of(config)
    for weights in ({}, {"judgement": 1.0, "refinement": 3.0}):
        refines = {"policy": str(critic)} if weights else {}
        paid = critic_reward(**weights, **refines, template="plain_critique@2", device="cpu")
        asked = dataclasses.replace(config, critiques=dataclasses.replace(config.critiques, **weights))
        judges = judges_of(asked, learner, refiner=LocalPolicy(learner.checkpoint) if weights else None)
        for name in source.learnt[:4]:
            row, step = source.file.row(int(name.rpartition("/")[2])), source.step(name)
            columns = {column: [row[column]] * len(texts) for column in ("images", "right", "problem", "steps")}
            expected = paid(prompts=[""] * len(texts), completions=texts, **columns)
            group = rated_group(step, texts, judges)
            assert [one.worth for one in group] == expected
            assert [one.excluded == "" for one in group] == [reward is not None for reward in expected]
            assert [one.rewards[0][0] for one in group if not one.excluded] == [r for r in expected if r is not None]  # type: ignore[index]
    assert expected[-1] is None


def test_a_critique_that_cannot_be_read_moves_nothing(config: GrpoConfig, learner: Learner) -> None:
    """Neither its group's mean nor the weights, also where a divergence pulls at every token."""
    config = dataclasses.replace(config, loss=PolicyLossConfig(kl=0.1))
    step = steps_by_label(source_of(config))[True]
    right, wrong = texts_of(learner.inputs)
    gradients = []
    for texts in ((right, wrong), (right, wrong, UNREADABLE)):
        fresh = Learner(config, grpo.load_trained(config))
        group = rated_group(step, texts, judges_of(config, fresh))
        assert [one.excluded for one in group] == ["", "", "unread"][: len(texts)]
        assert [one.advantages for one in group] == [(0.5,), (-0.5,), ()][: len(texts)]
        grads: dict[str, torch.Tensor] = {}
        fresh.optimizer.register_step_pre_hook(
            lambda *_, f=fresh, g=grads: g.update({n: p.grad.clone() for n, p in f.trained.items()})
        )
        fresh.learn([group], lambda _: step.problem)
        gradients.append(grads)
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    measured = round_metrics([group], TERMS)
    assert (measured["excluded_unread"], measured["kept"], measured["right"]) == (1, 2, 0.5)
    assert measured["right_steps_passed"] == 0.5
    assert not {"wrong_steps_found", "steps", "zooms"} & measured.keys()


def test_a_format_is_paid_apart_from_the_verdict(config: GrpoConfig, learner: Learner) -> None:
    """What cannot be read, or does not end, then has a pull of its own; it is still no wrong verdict."""
    config = dataclasses.replace(config, terms=(*TERMS, TermConfig(reward="format", weight=0.5)))
    judges, step = judges_of(config, learner), steps_by_label(source_of(config))[True]
    right, wrong = texts_of(learner.inputs)
    group = rated_group(step, (right, wrong, UNREADABLE, UNREADABLE), judges)
    assert [one.excluded for one in group] == [""] * 4
    assert [one.outcome for one in group] == [1.0, 0.0, None, None]
    assert [one.rewards for one in group] == [((1.0,), (1.0,)), ((0.0,), (1.0,)), *[(None, (0.0,))] * 2]
    assert [one.advantages for one in group] == [(0.5 + 0.25,), (-0.5 + 0.25,), (-0.25,), (-0.25,)]
    measured = round_metrics([group], config.terms)
    assert (measured["right"], measured["format"]) == (0.5, 0.5)
    cut, failed = (
        asyncio.run(rated_critique(step, dataclasses.replace(written(learner.inputs, right), **of), "k", judges, 0))
        for of in ({"ended": False}, {"failure": "timeout"})
    )
    assert (cut.trajectory.stop, cut.trajectory.answer, cut.excluded) == ("length", None, "")
    assert failed.excluded == "timeout"


@pytest.mark.parametrize("right", [True, False])
def test_an_update_moves_toward_the_critiques_that_are_paid(config: GrpoConfig, right: bool) -> None:
    config = dataclasses.replace(config, learning_rate=1e-5)
    learner = Learner(config, grpo.load_trained(config))
    step = steps_by_label(source_of(config))[right]
    texts = texts_of(learner.inputs)
    group = [critique(learner.inputs, step, text) for text in texts]

    def nats(learner: Learner) -> list[torch.Tensor]:
        batches = [policy_batch(rows_of([one], step.problem, learner.inputs), learner.inputs) for one in group]
        with torch.no_grad():
            return [learner.log_probabilities(learner.checkpoint, batch) for batch in batches]

    before = nats(learner)
    judges = judges_of(config, learner)
    known = [
        asyncio.run(rated_critique(step, written(learner.inputs, text, of.tolist()), "k", judges, 0))
        for text, of in zip(texts, before, strict=True)
    ]
    rated, _ = asyncio.run(rate([known], [step.problem], judges))
    measures = learner.learn(rated, lambda _: step.problem)
    assert measures["ratio"] == pytest.approx(1, abs=1e-4)
    change = [float(b.sum() - a.sum()) for a, b in zip(before, nats(learner), strict=True)]
    passes, finds = change
    assert (passes > 0 > finds) if right else (finds > 0 > passes), change


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "internvl"])
@pytest.mark.parametrize("template", ["plain_critique@2", "critique@3"])
def test_what_is_trained_is_what_was_sampled(
    family: str, template: str, tiny_backbone: Callable[[str], Path], rows: Path
) -> None:
    """After steps with a crop, with and without a question, the log-probabilities are those of the sampler."""
    config = small(Path("unused"), rows, tiny_backbone(family))
    learner = Learner(config, grpo.load_trained(config))
    learner.inputs.config = dataclasses.replace(learner.inputs.config, critique_template=template)
    asked, about = learner.inputs.config.critiques.question, (READ, ZOOM, COUNT)
    request = Request(grid_problem(), about, 3, "k", 0, max_tokens=6, asked=asked, logprobs=True)
    found = asyncio.run(LocalPolicy(learner.checkpoint).sample(request))
    paths = [
        Trajectory(
            "p", (Step("other", one.text),), (SampledTurn(1, one.ids, one.logprobs),), None, "length", about=about
        )
        for one in found
    ]
    shown = [token for part in path_of(paths[0], grid_problem(), learner.inputs).parts for token in part.segment.ids]
    read = learner.inputs.asked_row(grid_problem(), about, asked).ids
    assert (*learner.inputs.prompt(grid_problem()).ids, *shown) == (*read, *found[0].ids)
    known = [Rated(path, None, advantages=(1.0,)) for path in paths]
    (row,) = rows_of(known, grid_problem(), learner.inputs)
    batch = policy_batch([row], learner.inputs)
    with torch.no_grad():
        log_p = learner.log_probabilities(learner.checkpoint, batch)
    assert torch.allclose(log_p, batch["sampled"], atol=2e-5)


# --- runs


def test_the_recipe_trains_a_critic_that_goes_on_after_a_kill(
    tmp_path: Path, rows: Path, critic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rounds; a run that is killed before the second is learnt reaches the weights of one that is not."""
    recipe = parse(GrpoConfig, ["--config", "configs/policy/critic.yaml"])
    assert recipe.policy.checkpoint == "runs/critic/prm"
    assert recipe.critiques is not None
    whole, killed = (
        dataclasses.replace(
            recipe,
            run=tmp_path / name,
            policy=ModelConfig(str(critic), device="cpu"),
            critiques=dataclasses.replace(recipe.critiques, rows=rows),
            rollouts=dataclasses.replace(ROLLOUTS, problems=4),
            rounds=2,
            validation=ValidationConfig(problems=2, every=1),
        )
        for name in ("whole", "killed")
    )
    grpo.main(whole)
    learn = Learner.learn

    def dies(self: Learner, *given: Any) -> Any:
        if self.round == 1:
            raise KeyboardInterrupt
        return learn(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", dies)
        with pytest.raises(KeyboardInterrupt):
            grpo.main(killed)
    grpo.main(killed)
    assert [read_round(whole.run, r) for r in range(2)] == [read_round(killed.run, r) for r in range(2)]
    one, other = (load_file(config.run / "policy/model.safetensors") for config in (whole, killed))
    assert all(torch.allclose(one[name].float(), other[name].float(), atol=1e-6) for name in one)
    lines = [json.loads(line) for line in (whole.run / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [0, 1, 2]
    assert lines[0]["kept"] >= 2, "the critic writes what can be read"
    assert {"right", "reward", "learn_kl"} <= lines[0].keys()
    assert all(line["validation_problems"] >= 1 and 0 <= line["validation_right"] <= 1 for line in lines)
    assert {"validation_right_steps_passed", "validation_wrong_steps_found"} & lines[2].keys()
    learnt = [line for line in lines if line.get("learn_updates")]
    assert learnt
    assert all(line["learn_ratio"] == pytest.approx(1, abs=1e-3) for line in learnt)
    page = (whole.run / "report.html").read_text()
    assert "Verdicts" in page
    assert "log-probability" in page

    async def reads() -> str:
        async with open_critic(ModelConfig(str(whole.run / "policy"), device="cpu")) as made:
            (said,) = await made.sample(Request(grid_problem(), (COUNT,), 1, "k", 0, max_tokens=4, asked=""))
            return said.text

    assert asyncio.run(reads())
    with pytest.raises(UserError, match=r"whole trained a critic, and critiques are no search trees"):
        problems_of(whole.run)


def test_the_plan_shows_a_critique_with_its_advantage(
    tmp_path: Path, rows: Path, critic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grpo.main(small(tmp_path / "run", rows, critic, dry_run=True))
    said = capsys.readouterr().out
    assert "a round: 8 rollouts of 2 problems" in said
    marks = [line.strip() for line in said.partition("not trained -:")[2].splitlines() if line.startswith("    ")]
    assert marks[0] == marks[1] == "-", "the question, and the steps that the critic read"
    assert len(marks) == 3


def test_held_out_steps_are_of_other_problems(rows: Path, critic: Path) -> None:
    source = source_of(small(Path("unused"), rows, critic, validation=ValidationConfig(problems=1)))
    learnt, held_out = ({name.rpartition("/")[0] for name in ids} for ids in (source.learnt, source.held_out))
    assert held_out
    assert not learnt & held_out
    assert {source.ids(number)[0] for number in range(50)} <= set(source.learnt)
    images = {problem.images for problem in source.validation()}
    assert all(images)


# --- bad input


def test_rows_that_teach_nothing_are_refused(rows: Path, critic: Path, dataset: Path, tmp_path: Path) -> None:
    with open_parquet(rows) as file:
        known = list(table_rows(file))
    for right in (True, False):
        path = tmp_path / f"{right}.parquet"
        write_parquet(path, [row for row in known if row["right"] is right], Features(FEATURES["prompts"]))
        said = "right" if right else "wrong"
        with pytest.raises(UserError, match=rf"all \d+ steps to learn from in .*{right}.parquet are {said}, so the"):
            grpo.main(small(tmp_path / "run", path, critic))
    with pytest.raises(UserError, match=r"a validation on 1000 leaves none to learn from; make more rows"):
        grpo.main(small(tmp_path / "run", rows, critic, validation=ValidationConfig(problems=1000)))
    with pytest.raises(UserError, match=r"d\.parquet lacks right, problem, steps; make it with train\.critic_rows"):
        grpo.main(small(tmp_path / "run", dataset, critic))
    with pytest.raises(UserError, match=r"no dataset .*; make it with `python -m train\.critic_rows --rows prompts`$"):
        grpo.main(small(tmp_path / "run", tmp_path / "nowhere.parquet", critic))
    assert not (tmp_path / "run").exists()


def test_a_round_without_a_readable_critique_stops_the_run(rows: Path, backbone: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(backbone, tmp_path / "random")
    dataclasses.replace(load_checkpoint_config(folder), provenance={"critiques": True}).save(folder)
    with pytest.raises(UserError, match=r"round 0: none of its 8 critiques can be read, so nothing is learnt; train"):
        grpo.main(small(tmp_path / "run", rows, folder))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"terms": (TermConfig(),)}, r"terms\[0\]: reward: outcome pays solutions, not critiques; set reward: critic"),
        ({"terms": (TermConfig(reward="format"),)}, "terms pay no verdict, so a critic learns nothing; add one with"),
        ({"critiques": None}, r"terms\[0\] pays critiques, and there are none; give critiques\.rows"),
        ({"terms": (TermConfig(reward="critic", value="leaves"),)}, "set value: group or none"),
        ({"prm": ModelConfig("runs/prm")}, "which prm is not made for; remove prm, or critiques"),
        ({"problem_file": Path("p.jsonl")}, "remove problem_file, or critiques"),
        ({"rollouts": RolloutsConfig(forks=ForksConfig("uniform"))}, "remove rollouts.forks, or critiques"),
        ({"exclude": ExcludeConfig(over_length=True)}, "remove exclude, or critiques"),
        ({"critiques": CritiquesConfig(Path("r"), refinement=1.0)}, "give refinement and policy, or neither"),
        ({"critiques": CritiquesConfig(Path("r"), judgement=0.0)}, "give one above 0"),
        ({"policy": ModelConfig("builtin/policy")}, "builtin/policy never learnt to write critiques"),
    ],
)
def test_a_config_that_trains_no_critic_is_refused(
    changes: dict[str, Any], said: str, tmp_path: Path, rows: Path, critic: Path
) -> None:
    with pytest.raises(UserError, match=said):
        grpo.main(small(tmp_path / "run", rows, critic, **changes))
    assert not (tmp_path / "run").exists()


def test_a_round_in_shares_is_the_round(config: GrpoConfig, learner: Learner) -> None:
    """Each group is the critiques of one step, in order, and none depends on the others of the round."""
    source, judges = source_of(config), judges_of(config, learner)
    problems = [source.problem(name) for name in source.learnt[:3]]
    together = asyncio.run(source.sample(problems, judges, 0))
    (alone,) = asyncio.run(source.sample(problems[1:2], judges, 0))
    assert [one.trajectory.steps for one in together[1]] == [one.trajectory.steps for one in alone]
    assert [of[0].trajectory.problem_id for of in together] == [problem.id for problem in problems]
    assert {len(of) for of in together} == {4}
