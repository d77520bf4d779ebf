"""A critic's training rows: a judge's reasons, weights of reasons, kept critiques, pairs and prompts."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import solved
from tests.learnt import load_trees
from train import critic_rows
from train.policy.critic_rows import Criticised, criticised, sampled_rows, steps_of
from train.policy.critic_rows_config import CriticRowsConfig
from train.reward.checks import check
from train.reward.config import LossConfig, PrmConfig, RowsConfig
from train.reward.critiques import critiques_of, taught, weights_of
from train.reward.data import labelled_row
from vlprm.data.dataset import LabelledPath, open_parquet, read_rows, row_paths, table_rows, write_dataset
from vlprm.integrations.trl_critic import critic_reward
from vlprm.model.checkpoint_config import load_checkpoint_config
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import load_policy
from vlprm.policy import Continuation, Request
from vlprm.policy.critic_reward import LabelledStep
from vlprm.policy.critique import critique_of, critique_text, parse_critique
from vlprm.policy.local import LocalPolicy
from vlprm.policy.refinement import right_refinements
from vlprm.prompts import critique_template
from vlprm.schema import Problem, Step, StepLabel, Verdict, to_json
from vlprm.serving.config import ModelConfig
from vlprm.steps import parse_step
from vlprm.tasks import TASKS
from vlprm.zoom.policy import ZoomPolicy

LAST, PLAIN_LAST = critique_template("critique@3"), critique_template("plain_critique@3")
FIRST = critique_template("plain_critique@2")
INSTEAD = parse_step("[answer] 2")
JUDGE = LossConfig(critique=1.0, critiques="judge")
SAID = {True: Verdict(True, reason="So it is."), False: Verdict(False, "reasoning", "It does not follow.")}


@pytest.fixture(scope="module")
def paths(dataset: Path) -> list[LabelledPath]:
    """A solution of three steps, right, right and wrong by its labels, and one of three right steps."""
    found = next(p for tree in load_trees(dataset, RowsConfig()) for p in tree if len(p.steps) >= 3)
    labels = tuple(StepLabel(target=t, error_kind=None if t else "reasoning", rule="judge") for t in (1.0, 1.0, 0.0))
    three = replace(found, steps=found.steps[:3], nodes=found.nodes[:3], labels=labels, corrected=(None, None, INSTEAD))
    right = replace(three, labels=(labels[0],) * 3, corrected=(None,) * 3)
    return [three, right]


def judged(path: LabelledPath, **said: Sequence[Verdict | None]) -> LabelledPath:
    votes = [{name: of[k] for name, of in said.items() if of[k]} for k in range(3)]
    labels = (replace(label, votes=vote) for label, vote in zip(path.labels, votes, strict=True))
    return replace(path, labels=tuple(labels))


def test_a_judges_reasons_are_taught_where_it_agrees_with_every_label(paths: list[LabelledPath]) -> None:
    wrong, right = paths
    agrees, differs = (SAID[True], SAID[True], SAID[False]), (SAID[True], SAID[False], SAID[False])
    said = taught(judged(wrong, b=differs, a=agrees), JUDGE)
    assert [one.reason for _, one in said] == ["So it is.", "So it is.", "It does not follow."]
    assert [one.corrected for _, one in said] == [None, None, INSTEAD]
    assert taught(judged(wrong, a=differs), JUDGE) == []
    assert taught(judged(wrong, a=(SAID[True], None, SAID[False])), JUDGE) == [], "it did not speak about a step"
    assert taught(judged(wrong, a=(*agrees[:2], replace(agrees[2], reason=" "))), JUDGE) == [], "it gave no reason"
    assert taught(judged(right, a=agrees), JUDGE) == [], "it finds an error where there is none"
    assert len(taught(judged(wrong, a=differs), LossConfig(critique=1.0))) == 3, "from labels alone"
    unknown = replace(wrong, labels=(wrong.labels[0], replace(wrong.labels[1], target=None), wrong.labels[2]))
    assert len(taught(judged(unknown, a=differs), JUDGE)) == 1, "what follows a step without a label does not count"


def test_a_taught_critique_is_read_as_it_was_meant(paths: list[LabelledPath]) -> None:
    wrong = judged(paths[0], a=(SAID[True], SAID[True], SAID[False]))
    texts = critiques_of([wrong], {node: k for k, node in enumerate(wrong.nodes)}, PLAIN_LAST, JUDGE)
    assert [parse_critique(text, PLAIN_LAST) for _, text in texts] == [one for _, one in taught(wrong, JUDGE)]


@pytest.mark.parametrize("template", ["plain_critique@2", "plain_critique@3"])
def test_reasons_weigh_less_than_the_verdict(paths: list[LabelledPath], inputs: InputBuilder, template: str) -> None:
    form, encode = critique_template(template), inputs.text.encode
    text = critique_text(critique_of(paths[0].steps[2], "reasoning", INSTEAD, "No."[: 3 * form.verdict_last]), form)
    weights = weights_of(text, form, 0.25, encode)
    heavy = inputs.tokenizer.decode([i for i, w in zip(encode(text), weights, strict=True) if w == 1.0])
    assert heavy == ("verdict: wrong: [answer] 2" if form.verdict_last else "(wrong: [answer] 2)\n")
    config = inputs.config
    inputs.config = replace(config, critique_template=template)
    rows = [labelled_row([paths[0]], inputs, LossConfig(critique=1.0, reasons=w), {}) for w in (1.0, 0.25, 0.0)]
    inputs.config = config
    light, (full, mixed, none) = set(rows[1].taught), (sum(row.taught) for row in rows)
    assert light == {0.25, 1.0}
    assert mixed == pytest.approx(none + (full - none) / 4)


def test_reasons_have_no_place_after_a_verdict(backbone: Path, dataset: Path, tmp_path: Path) -> None:
    config = PrmConfig(dataset, tmp_path / "run", str(backbone), loss=JUDGE)
    with pytest.raises(ValueError, match=r"no place for a judge's reasons; set critique_template: critique@3"):
        check(config)
    check(replace(config, critique_template="plain_critique@3"))
    with pytest.raises(ValueError, match=r"critiques are not trained; set loss.critique: 1"):
        check(replace(config, loss=LossConfig(), critique_template="critique@3"))
    with pytest.raises(ValueError, match=r"unknown critique template 'critique'; known: plain_critique@2,"):
        check(replace(config, critique_template="critique"))


# --- sampled critiques


class Writer:
    """Writes these texts, in turn, whatever it is asked."""

    dialect, zoom = "relative_1000", ZoomPolicy()

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.asked: list[Request] = []

    async def sample(self, request: Request) -> list[Continuation]:
        self.asked.append(request)
        return [Continuation(self.texts[i % len(self.texts)], 5, True) for i in range(request.n)]

    def seen_size(self, *args: Any) -> tuple[int, int]:
        raise AssertionError

    crop_tokens = seen_size


class Solver(Writer):
    """A policy that answers rightly only after the corrected step `true`."""

    def __init__(self, gold: str, true: Step) -> None:
        super().__init__()
        self.gold, self.true = gold, true

    async def sample(self, request: Request) -> list[Continuation]:
        self.asked.append(request)
        answer = self.gold if request.steps[-1] == self.true else "no such thing"
        return [Continuation(f"[answer] {answer}", 5, True) for _ in range(request.n)]


def config_of(**changes: Any) -> CriticRowsConfig:
    return CriticRowsConfig(dataset=Path("d"), critic=ModelConfig("c"), run=Path("r"), **changes)


def test_only_known_steps_up_to_the_first_wrong_one_are_criticised(paths: list[LabelledPath]) -> None:
    wrong, _ = paths
    assert [step.right for step in steps_of([wrong], config_of())] == [True, True, False]
    unknown = replace(wrong, labels=(wrong.labels[0], replace(wrong.labels[1], target=None), wrong.labels[2]))
    assert [len(step.steps) for step in steps_of([unknown], config_of())] == [1]
    early = replace(wrong, labels=(wrong.labels[2], *wrong.labels[1:]))
    assert [step.right for step in steps_of([early], config_of())] == [False]


@pytest.fixture(scope="module")
def steps(paths: list[LabelledPath]) -> list[LabelledStep]:
    """A right and a wrong step."""
    return steps_of([paths[0]], config_of())[1:]


def test_a_critique_is_kept_or_paired_by_the_steps_label(steps: list[LabelledStep], inputs: InputBuilder) -> None:
    """The better text has the label's verdict, the worse one has not; both answer the same prompt."""
    right, wrong = (critique_text(critique_of(steps[0].steps[-1], None, c), FIRST) for c in (None, INSTEAD))
    for step in steps:
        same = critique_text(critique_of(step.steps[-1], None, step.steps[-1]), FIRST)
        critic = Writer(right, wrong, right, "cannot be read", f" {wrong}", same)
        said = asyncio.run(criticised(step, config_of(samples=6), FIRST, critic, None))
        assert (len(said.agree), len(said.differ), said.unread) == ((1, 2, 2) if step.right else (2, 1, 2))
        counts: Counter[str] = Counter()
        (pair,) = sampled_rows(step, Criticised.of(json.loads(json.dumps(said.record()))), "pairs", inputs, counts)
        calls_right = {
            name: parse_critique(pair[name][0]["content"][0]["text"], FIRST).corrected is None  # type: ignore[union-attr]
            for name in ("chosen", "rejected")
        }
        assert calls_right == {"chosen": step.right, "rejected": not step.right}
        kept = list(sampled_rows(step, said, "kept", inputs, counts))
        assert [row["prompt"] for row in kept] == [pair["prompt"]] * len(said.agree)
        assert [row["completion"][0]["content"][0]["text"] for row in kept] == list(said.agree)
        assert pair["prompt"][-1]["role"] == "assistant", "a critic without a question goes on"


def test_a_correction_that_does_not_help_is_not_kept(steps: list[LabelledStep]) -> None:
    (right, wrong), config = steps, config_of(samples=2, refinements=3)
    texts = [critique_text(critique_of(wrong.steps[-1], None, parse_step(t)), FIRST) for t in ("so 2", "so 3")]
    solver = Solver(str(wrong.problem.answer), parse_step("so 3"))
    said = asyncio.run(criticised(wrong, config, FIRST, Writer(*texts), solver))
    assert (said.agree, said.useless) == ((texts[1],), 1)
    assert [request.n for request in solver.asked] == [3, 3]
    assert solver.asked[0].steps == (*wrong.steps[:-1], parse_step("so 2"))
    agreed = asyncio.run(
        criticised(right, config, FIRST, Writer(critique_text(critique_of(right.steps[-1]), FIRST)), solver)
    )
    assert (len(agreed.agree), len(solver.asked)) == (1, 2), "a right step needs no refinement"


# --- the command


@pytest.fixture(scope="module")
def prompts(dataset: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("critic") / "run"
    critic_rows.main(CriticRowsConfig(dataset=dataset, critic=ModelConfig(str(backbone)), run=run, rows="prompts"))
    return run / "prompts.parquet"


def test_prompts_have_as_many_right_as_wrong_steps(prompts: Path, dataset: Path) -> None:
    with open_parquet(prompts) as file:
        rows = list(table_rows(file))
    assert len(rows) >= 2
    of_problem: dict[str, list[bool]] = {}
    for row in rows:
        of_problem.setdefault(json.loads(row["problem"])["id"], []).append(row["right"])
        assert len(row["images"]) >= json.loads(row["problem"])["images"]
    assert all(sum(right) * 2 == len(right) for right in of_problem.values())


def test_what_a_critic_cannot_learn_from_is_refused(dataset: Path, backbone: Path, tmp_path: Path) -> None:
    """A real, random critic writes nothing that can be read; and a dataset may have wrong steps alone."""
    random = shutil.copytree(backbone, tmp_path / "critic")
    replace(load_checkpoint_config(random), provenance={"critiques": True}).save(random)
    asked = CriticRowsConfig(dataset=dataset, critic=ModelConfig(str(random)), run=tmp_path / "run", samples=1)
    few = tmp_path / "few.parquet"
    rows = read_rows(dataset)
    both = [row for row in rows if len({step.right for step in steps_of(row_paths(row), asked)}) == 2]
    write_dataset(few, both[:1])
    with pytest.raises(ValueError, match=r"no critique is of use .*'unread_critiques': \d+.*train the critic first"):
        critic_rows.main(replace(asked, dataset=few))
    assert not (tmp_path / "run" / "pairs.parquet").exists()
    with pytest.raises(ValueError, match=r"gives 0 right and \d+ wrong steps .* learns nothing from one class"):
        critic_rows.main(replace(asked, run=tmp_path / "right", rows="prompts", threshold=1.0))


# --- the reward


def test_a_critique_is_paid_for_its_verdict_and_for_what_its_correction_brings(
    prompts: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All cases of a right and a wrong step, in columns as a trainer hands them over."""
    with open_parquet(prompts) as file:
        rows = list(table_rows(file))
    right, wrong = (next(row for row in rows if row["right"] is kind) for kind in (True, False))
    brings: dict[str, float | None] = {"good": 0.75, "bad": 0.0, "lost": None}

    async def refinements(
        engine: Any, problem: Problem, before: Any, corrected: Step, n: int, *rest: Any, **_: Any
    ) -> Any:
        assert (n, problem.images) == (3, tuple(image["bytes"] for image in wrong["images"])[: len(problem.images)])
        assert [to_json(step) for step in before] == json.loads(wrong["steps"])[:-1]
        return brings[corrected.text]

    monkeypatch.setattr("vlprm.policy.critic_reward.right_refinements", refinements)
    corrections = (None, *map(parse_step, brings))
    texts = [critique_text(critique_of(INSTEAD, "reasoning", c), LAST) for c in corrections]
    texts += ["The step is right.", texts[0].replace("right", "incorrect")]

    def rewards(row: dict[str, Any], **changes: Any) -> list[float | None]:
        columns = {name: [row[name]] * len(texts) for name in ("images", "right", "problem", "steps")}
        completions = [[{"role": "assistant", "content": text}] for text in texts]
        reward = critic_reward(device="cpu", **changes)
        return reward(prompts=[row["prompt"]] * len(texts), completions=completions, **columns, trainer_state=None)

    both = {"judgement": 1.0, "refinement": 3.0, "policy": str(backbone), "samples": 3}
    assert rewards(right) == rewards(right, **both) == [1.0, 0.0, 0.0, 0.0, None, None]
    assert rewards(wrong) == [0.0, 1.0, 1.0, 1.0, None, None]
    assert rewards(wrong, **both) == [0.0, (1 + 3 * 0.75) / 4, 0.25, None, None, None]
    assert "3 of 6 critiques have no reward: 2 cannot be read" in caplog.text


def test_a_reward_that_teaches_nothing_is_refused(backbone: Path) -> None:
    with pytest.raises(ValueError, match="give one above 0"):
        critic_reward(judgement=0.0)
    with pytest.raises(ValueError, match="give refinement and policy, or neither"):
        critic_reward(refinement=1.0)
    reward = critic_reward()
    with pytest.raises(ValueError, match=r"the dataset lacks right, problem, steps; make it with train\.critic_rows"):
        reward(prompts=[""], completions=[""])
    problem = json.dumps({"id": "", "task": "t", "question": "?", "answer": "1", "answer_type": "word", "images": 0})
    steps = [json.dumps([to_json(Step("other", f"{k}"))]) for k in range(64)]
    with pytest.raises(ValueError, match="all of the first 64 steps are wrong, so the critic would learn to call"):
        reward(prompts=[""] * 64, completions=[""] * 64, right=[False] * 64, problem=[problem] * 64, steps=steps)
    reward = critic_reward()
    mixed = [True, *[False] * 63]
    assert reward([""] * 64, [""] * 64, right=mixed, problem=[problem] * 64, steps=steps) == [None] * 64


def test_the_refinements_of_a_real_policy_are_counted() -> None:
    """The built-in policy goes on from the step before a wrong one, put right by the truth."""
    problem = TASKS["count_grid"].problem("train", 0)
    before = solved(problem)[:-1]
    policy = LocalPolicy(load_policy("builtin/policy"))
    found = asyncio.run(right_refinements(policy, problem, before[:-1], before[-1], 4, "k", 0))
    assert found is not None
    assert found > 0.5
    for answer, share in (("77", 0.0), (problem.answer, 1.0)):
        corrected = parse_step(f"[answer] {answer}")
        assert asyncio.run(right_refinements(policy, problem, before[:1], corrected, 2, "k", 0)) == share
