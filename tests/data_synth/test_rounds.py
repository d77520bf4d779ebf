"""Trees of a policy's own rounds: unbiased counts where solutions fork, and the way to a row of train.prm."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from data_synth import label, rounds
from data_synth.labels.config import LabelConfig
from data_synth.search.config import RoundsConfig
from data_synth.search.rounds import Rounds, Sampled, tree_of
from data_synth.search.store import TreeRun
from train import grpo
from train.policy.grpo_config import ForksConfig, GrpoConfig, RolloutsConfig, ValidationConfig
from train.reward.config import LossConfig, RowsConfig
from train.reward.data import examples_of, labelled_row
from train.reward.trees import learnt_tree
from train.reward.trees import tree_of as dataset_tree
from vlprm.data.dataset import iterate_rows
from vlprm.errors import UserError
from vlprm.model.loading import load_inputs
from vlprm.schema import Step
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS

PROBLEM = TASKS["count_grid"].problem("train", 0)
RIGHT, WRONG = str(PROBLEM.answer), f"{PROBLEM.answer}9"
CHANCE = {("a",): 0.5, ("a", "x"): 0.9, ("a", "y"): 0.1, ("b",): 0.2, ("b", "x"): 0.2, ("b", "y"): 0.2}


def step(text: str) -> Step:
    return Step("reasoning", f"[reasoning] {text}")


def solved(rng: random.Random, begun: tuple[str, ...] = ()) -> Sampled:
    """A solution of a policy that writes a or b, x or y, and an answer that is right by CHANCE."""
    words = (*begun, *("ab", "xy")[len(begun) :])
    words = tuple(word if k < len(begun) else rng.choice(word) for k, word in enumerate(words))
    answer = RIGHT if rng.random() < CHANCE[words] else WRONG
    steps = (*map(step, words), Step("answer", f"[answer] {answer}"))
    return Sampled(steps, len(begun), answer, "answer")


def group(rng: random.Random) -> list[Sampled]:
    """Two solutions from the prompt. One that goes on with y forks after its first step, so that what a fork shares
    depends on what came after it."""
    first = [solved(rng), solved(rng)]
    forks = [one for one in first if one.steps[1] == step("y") and one.steps[0] == step("a")]
    return [*first, *(solved(rng, ("a",)) for _ in forks for _ in range(3))]


def test_counts_are_unbiased_where_solutions_fork() -> None:
    """Summed over many groups, the share of right solutions at each prefix is the policy's. Had all solutions counted
    for the prompt, it would be too high: the fork's prefix is the better one."""
    rng = random.Random(0)
    right: Counter[Any] = Counter()
    valid: Counter[Any] = Counter()
    shares = []
    for _ in range(1500):
        solutions = group(rng)
        tree = tree_of(PROBLEM, solutions)
        right[()], valid[()] = right[()] + tree.root.mc_correct, valid[()] + tree.root.mc_valid
        shares += [one.answer == RIGHT for one in solutions]
        for node, one in enumerate(tree.nodes):
            words = tuple(tree.nodes[n].step.text.split()[-1] for n in tree.path(node))
            if len(words) < 3:
                right[words] += one.label.mc_correct
                valid[words] += one.label.mc_valid
    values = {(): 0.35, **CHANCE}
    assert valid[()] == 3000
    for words, value in values.items():
        assert right[words] / valid[words] == pytest.approx(value, abs=0.03), words
    assert sum(shares) / len(shares) > 0.35 + 0.03


def test_a_tree_has_the_groups_prefixes_once_and_its_answers() -> None:
    failed = Sampled((step("a"),), 0, None, "timeout")
    shared = [Sampled((step("a"), Step("answer", f"[answer] {x}")), 0, x, "answer") for x in (RIGHT, WRONG, WRONG)]
    tree = tree_of(PROBLEM, [*shared, failed])
    assert [node.step.text for node in tree.nodes] == ["[reasoning] a", *(f"[answer] {x}" for x in (RIGHT, WRONG))]
    counts = [(one.mc_correct, one.mc_valid, one.mc_total) for one in (tree.root, *(n.label for n in tree.nodes))]
    assert counts == [(1, 3, 4), (1, 3, 4), (1, 1, 1), (0, 2, 2)]
    assert dict(tree.leaves) == {0: None, 1: RIGHT, 2: WRONG}
    assert tree.stops == {"answer": 3, "timeout": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a policy after one round with forks."""
    config = GrpoConfig(
        tmp_path_factory.mktemp("grpo") / "run",
        policy=ModelConfig("builtin/policy", device="cpu"),
        tasks=("count_grid",),
        rounds=1,
        rollouts=RolloutsConfig(problems=2, each=6, max_tokens=60, forks=ForksConfig("uniform", 3)),
        learning_rate=1e-4,
        validation=ValidationConfig(problems=0),
    )
    grpo.main(config)
    return config.run


def test_rounds_become_rows_of_a_reward_model(trained: Path, tmp_path: Path) -> None:
    rounds.main(RoundsConfig(trained, tmp_path / "trees"))
    trees = {one.problem.id: one.tree for one in TreeRun(tmp_path / "trees")}
    stored: dict[str, list[Any]] = defaultdict(list)
    for line in (trained / "rounds/00000.jsonl").read_text().splitlines():
        told = json.loads(line)["trajectory"]
        stored[told["problem_id"]].append(told)
    assert trees.keys() == stored.keys()
    for name, told in stored.items():
        assert trees[name].rollouts == len(told) == 6
        assert trees[name].root.mc_total == sum(one["given"] == 0 for one in told) < 6
    label.main(LabelConfig(tmp_path / "trees", tmp_path / "labels", rule="outcome", keep_unmixed=True))
    found = list(iterate_rows(tmp_path / "labels/dataset.parquet"))
    assert len(found) == 2
    tree = learnt_tree(dataset_tree([(1, found[0])]), RowsConfig())
    (example,) = examples_of(tree, RowsConfig())
    row = labelled_row(example, load_inputs(Path("vlprm/builtin/backbone")), LossConfig(), {})
    assert sum(0 <= target <= 1 for target in row.targets) > 1
    rounds.main(RoundsConfig(trained, tmp_path / "trees"))  # finished


def written(folder: Path, number: int, answers: str) -> None:
    lines = [
        {"key": f"p/{i}", "trajectory": {
            "problem_id": PROBLEM.id, "steps": [asdict(step("a"))], "given": 0, "answer": answer, "stop": "answer",
        }} for i, answer in enumerate(answers)
    ]  # fmt: skip
    (folder / "rounds").mkdir(exist_ok=True)
    (folder / f"rounds/{number:05}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_newest_group_of_a_problem_counts(tmp_path: Path) -> None:
    for number, answers in enumerate(("11", "222", "3333")):
        written(tmp_path, number, answers)
    found = Rounds(tmp_path)
    assert [one.answer for one in found.group(PROBLEM.id)] == [*"3333"]
    assert found.replaced == 2
    assert Rounds(tmp_path, newest=1).replaced == 0
    assert len(Rounds(tmp_path, newest=2).files) == 2


def test_folders_without_rounds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no rounds; give the run folder of train\.grpo"):
        rounds.main(RoundsConfig(tmp_path, tmp_path / "trees"))
    written(tmp_path, 0, "12")
    with pytest.raises(UserError, match=r"config\.yaml is missing; copy it next to rounds"):
        rounds.main(RoundsConfig(tmp_path, tmp_path / "trees"))
    path = tmp_path / "rounds/00000.jsonl"
    path.write_text(path.read_text().replace('"given": 0, ', ""))
    with pytest.raises(UserError, match="it lacks given"):
        rounds.main(RoundsConfig(tmp_path, tmp_path / "trees"))
