"""The real Trainer with our rows: accumulation changes nothing, rows are labelled as the dataset says."""

import asyncio
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data_synth.search import search
from data_synth.search_tree import SearchConfig
from tests.teacher import TeacherEngine
from train.data import KIND_INDEX, batch_rows, in_length_batches, labelled_row, load_paths
from train.lessons import Curriculum, Lesson, batch_lessons, executed_steps, lesson, lesson_row, teacher
from train.prm import PrmConfig, make_trainer, split_rows
from train.progress import Progress
from vlprm.answers import is_correct
from vlprm.dataset import tree_row, write_dataset
from vlprm.fusion import fuse_tree
from vlprm.inputs import IGNORE, InputBuilder
from vlprm.judge_quality import JudgeQuality, TreeEvidence
from vlprm.reward_model import OUTPUTS, load_reward_model
from vlprm.tasks import TASKS
from vlprm.tasks.synthetic import truthful


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = []
    for i in range(10):
        problem = list(TASKS.values())[i % 5].problem("train", i)
        tree = asyncio.run(search(problem, TeacherEngine(), SearchConfig(searches=1), seed=1))
        right = [is_correct(a, str(problem.answer), problem.answer_type) for _, a in tree.leaves]
        paths = [(tree.path(leaf), outcome) for (leaf, _), outcome in zip(tree.leaves, right, strict=True)]
        labels = fuse_tree(TreeEvidence.of(tree), paths, "bayes", JudgeQuality())
        nodes = tuple(dataclasses.replace(n, label=label) for n, label in zip(tree.nodes, labels, strict=True))
        rows.append(tree_row(problem, dataclasses.replace(tree, nodes=nodes), right, {"judge": "none"}))
    path = tmp_path_factory.mktemp("data") / "d.parquet"
    write_dataset(path, rows)
    return path


@pytest.mark.parametrize("accumulate", [2, 4])
def test_the_trainers_steps_do_not_depend_on_accumulation(
    dataset: Path, backbone: Path, tmp_path: Path, accumulate: int
) -> None:
    """The trap: stock heads inflate the loss by the accumulation factor."""
    logs = []
    for batch, parts in ((8, 1), (8 // accumulate, accumulate)):
        config = PrmConfig(
            dataset, tmp_path / str(parts), str(backbone), batch_size=batch, accumulate=parts, held_out=0.2
        )
        checkpoint = load_reward_model(backbone, new_head=True)
        trainer = make_trainer(config, checkpoint, *split_rows(config, checkpoint.inputs))
        trainer.args.logging_steps, trainer.args.max_steps = 1, 3
        trainer.train()
        steps = [log for log in trainer.state.log_history if "grad_norm" in log]
        logs.append([(log["loss"], log["grad_norm"]) for log in steps])
    assert torch.tensor(logs[0]) == pytest.approx(torch.tensor(logs[1]), abs=2e-4)
    assert all(0 < loss < 2 for loss, _ in logs[0])


def test_rows_carry_the_datasets_labels(dataset: Path, inputs: InputBuilder) -> None:
    for tree in load_paths(dataset, 6):
        assert len(tree) <= 6
        for path in tree:
            row = labelled_row(path, inputs)
            assert len(row.targets) == len(row.row.step_ends) == len(path.steps)
            assert [None if t == IGNORE else t for t in row.targets] == [label.target for label in path.labels]
    batch = batch_rows([labelled_row(p, inputs) for p in tree], inputs.pad_id)
    assert batch["labels"].shape == batch["step_ends"].shape == batch["error_kinds"].shape
    assert (batch["mm_token_type_ids"] == 1).any()
    assert KIND_INDEX["action"] == OUTPUTS.index("perception")


def test_a_target_outside_its_range_is_refused(dataset: Path, inputs: InputBuilder) -> None:
    path = load_paths(dataset, 1)[0][0]
    labels = tuple(dataclasses.replace(label, target=1.5) for label in path.labels)
    with pytest.raises(ValueError, match=r"target 1.5 is not in \[0, 1\]"):
        labelled_row(dataclasses.replace(path, labels=labels), inputs)


def test_too_few_problems_are_refused(dataset: Path, backbone: Path, inputs: InputBuilder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="training needs one beside 10 held out"):
        split_rows(PrmConfig(dataset, tmp_path, held_out=1.0), inputs)


def curriculum(family: str, **kwargs: Any) -> Curriculum:
    return Curriculum((TASKS[family],), **{"proofread": 0, "blind_spots": {}, "slip_rate": 0.0, "seed": 0, **kwargs})


def learnt(taught: Lesson, inputs: InputBuilder) -> str:
    labels = batch_lessons([lesson_row(taught, inputs)], inputs.pad_id)["labels"][0]
    assert inputs.image_token_id not in labels
    return str(inputs.tokenizer.decode(labels[labels != IGNORE]))


def test_the_policy_learns_what_it_writes_and_nothing_it_is_shown(inputs: InputBuilder) -> None:
    taught = lesson(curriculum("fine_print"), 2)
    texts = [step.text for step in taught.steps]
    zoom = next(i for i, t in enumerate(texts) if t.startswith("[zoom]"))
    text = learnt(taught, inputs)
    assert text.startswith("\n\n".join(texts[: zoom + 1]) + "<|im_end|>" + texts[zoom + 1])
    assert text.endswith(texts[-1] + "<|im_end|>")


def test_what_is_wrong_in_a_draft_is_not_learnt_and_its_correction_is(inputs: InputBuilder) -> None:
    problem = TASKS["pattern"].problem("train", 0)
    right = TASKS["pattern"].solve(problem.meta["scene"], truthful)
    drafted = [right[0] + " red", right[1], right[2].replace("cell", "cell 9")]
    taught = Lesson(problem, executed_steps(problem, drafted), (True, False, True), correction=right[2])
    # The id after an uncorrected wrong step carries no loss either: it would teach that nothing was amiss.
    assert learnt(taught, inputs) == f"{right[1]} (wrong: {right[2]})<|im_end|>"


@pytest.mark.parametrize("family", list(TASKS))
def test_a_proofread_draft_ends_with_the_truth(family: str) -> None:
    lessons = [lesson(curriculum(family, proofread=2), i) for i in range(90)]
    assert all(len({a.problem.id, b.problem.id}) == 1 for a, b in zip(lessons[::3], lessons[2::3], strict=True))
    corrected = [given for given in lessons if given.correction is not None]
    assert 15 < len(corrected) < 60
    for given in corrected:
        truth = TASKS[family].solve(given.problem.meta["scene"], truthful)
        assert given.correction == truth[len(given.steps) - 1] != given.steps[-1].text
        assert given.wrong[-1]
        assert given.corrected_steps[-1].text.endswith(f" (wrong: {given.correction})")
    assert not any(any(given.wrong) for given in lessons if given.correction is None)


def test_the_careless_teacher_errs_where_it_is_blind() -> None:
    blind = curriculum("chart", blind_spots={"height 6": 0.5})
    said = [teacher(blind, f"id {i}")("perception", "height 6", 6, [7, 5]) for i in range(400)]
    assert set(said) == {6, 7}
    assert 0.4 < said.count(7) / 400 < 0.6
    assert all(teacher(blind, f"id {i}")("perception", "height 5", 5, [6, 4]) == 5 for i in range(50))
    again = [teacher(blind, f"id {i}")("perception", "height 6", 6, [7, 5]) for i in range(400)]
    assert again == said
    writer = teacher(blind, "id")
    assert len({writer("perception", "height 6", 6, [7, 5]) for _ in range(20)}) == 1, "a blind spot is a habit"


def test_each_step_stands_once_in_the_metrics_of_a_run_that_was_killed(tmp_path: Path) -> None:
    def train(first: int, last: int) -> None:
        progress, args = Progress(40), SimpleNamespace(output_dir=str(tmp_path))
        progress.on_train_begin(args, SimpleNamespace(global_step=first), None)
        for step in range(first + 10, last + 1, 10):
            progress.on_log(args, SimpleNamespace(global_step=step), None, {"loss": 1 / step})

    def steps() -> list[int]:
        return [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    train(0, 30)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')
    train(20, 40)  # its last checkpoint was at step 20
    assert steps() == [10, 20, 30, 40]
    Progress(40).on_log(
        SimpleNamespace(output_dir=str(tmp_path)), SimpleNamespace(global_step=40), None, {"train_runtime": 9.0}
    )
    train(40, 40)  # killed while it wrote its weights
    assert steps() == [10, 20, 30, 40]
    train(0, 10)
    assert steps() == [10]


def test_batches_have_like_lengths_and_lose_nothing(dataset: Path) -> None:
    paths = [path for tree in load_paths(dataset, 8) for path in tree]
    ordered = in_length_batches(paths, 4, seed=0)
    key = lambda p: (p.problem.id, [s.text for s in p.steps])  # noqa: E731
    assert sorted(map(key, ordered)) == sorted(map(key, paths))
    assert in_length_batches(paths, 4, seed=0) == ordered != in_length_batches(paths, 4, seed=1)
    zooms = [
        [sum(s.region is not None for s in p.steps) for p in ordered[i : i + 4]] for i in range(0, len(ordered), 4)
    ]
    assert sum(max(batch) > min(batch) for batch in zooms) <= 3
