"""The real Trainer with our rows: accumulation changes nothing, and rows are labelled as the dataset says."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from tests.conftest import solved
from tests.learnt import load_trees, sized
from tests.tiny_backbones import QWEN_TOWER, mrope, qwen2_processor, write_qwen
from train import merge, prm
from train.loop.progress import Progress
from train.policy.lessons import (
    Curriculum,
    Lesson,
    batch_lessons,
    lesson,
    lesson_row,
    refuse_unknown_concepts,
    teacher,
)
from train.prm import make_trainer
from train.reward.batches import batch_rows
from train.reward.config import LossConfig, PrmConfig, RowsConfig
from train.reward.data import KIND_INDEX, labelled_row
from train.reward.losses import IGNORE
from train.reward.planning import split_rows
from train.reward.trainer import StepTrainer
from vlprm.data.ablation import ablated
from vlprm.data.dataset import read_rows, row_paths
from vlprm.errors import UserError
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint, load_inputs, load_policy
from vlprm.model.reward_loading import load_reward_model
from vlprm.model.reward_model import OUTPUTS
from vlprm.schema import Problem, Step
from vlprm.scoring.tree import score, score_steps
from vlprm.tasks import TASKS
from vlprm.tasks.synthetic import truthful
from vlprm.zoom.execute import executed_steps


@pytest.mark.parametrize("of", ["paths", "trees"])
def test_the_trainers_steps_do_not_depend_on_accumulation(
    dataset: Path, backbone: Path, tmp_path: Path, of: str
) -> None:
    """Stock heads inflate the loss by the accumulation factor. One global batch is trained in one part and in four."""
    logs = []
    for budget, parts in ((100_000, 1), (1_000, 4)):
        rows = RowsConfig(of=of, batch_tokens=budget)  # type: ignore[arg-type]
        pairs = 0.5 if of == "trees" else 0.0
        loss = LossConfig(balance=True, siblings=pairs, candidates=pairs)
        config = PrmConfig(dataset, tmp_path / str(parts), str(backbone), rows=rows, loss=loss, held_out=0.2)
        checkpoint = load_reward_model(backbone, new_head="step")
        train, held = split_rows(config, checkpoint.inputs)
        trainer = make_trainer(dataclasses.replace(config, accumulate=len(train)), checkpoint, train, held)
        assert (len(train) == 1) == (parts == 1)
        trainer.args.logging_steps, trainer.args.max_steps = 1, 1
        trainer.train()
        logs.append([(log["loss"], log["grad_norm"]) for log in trainer.state.log_history if "grad_norm" in log])
    assert torch.tensor(logs[0]) == pytest.approx(torch.tensor(logs[1]), abs=2e-4)
    assert all(0 < loss < 5 for loss, _ in logs[0])


@pytest.mark.parametrize(
    ("family", "head"), [("qwen2_5_vl", "step"), ("qwen3_vl", "step"), ("internvl", "step"), ("qwen2_5_vl", "verdict"),
                         ("qwen2_5_vl", "implicit")]
)  # fmt: skip
def test_adapters_are_trained_saved_and_merged(
    dataset: Path, tiny_backbone: Any, tmp_path: Path, family: str, head: str, problems: list[Problem]
) -> None:
    """The reloaded adapters and the merged checkpoint give equal scores, with the verdicts that were trained."""
    run, backbone = tmp_path / "lora", str(tiny_backbone(family))
    rows = RowsConfig(batch_tokens=700)  # the first step moves the head alone, which starts at zero
    config = PrmConfig(
        dataset, run, backbone, lora_rank=4, held_out=0.2, rows=rows, epochs=2, loss=LossConfig(value=1.0)
    )
    if head == "verdict":
        config = dataclasses.replace(config, head="verdict", verdicts=("Y", "N"), loss=LossConfig())
    if head == "implicit":
        config = dataclasses.replace(config, head="implicit", loss=LossConfig(labels="outcome"))
    prm.main(config)
    assert not (run / "model.safetensors").exists()
    asked = [(p, solved(p)) for p in problems[:3]]
    loaded = numbers(load_reward_model(run), asked)
    merge.main(merge.MergeConfig(run, tmp_path / "merged"))
    assert numbers(load_reward_model(tmp_path / "merged"), asked) == pytest.approx(loaded, abs=1e-6)
    before, after = load_policy(backbone).model.state_dict(), load_reward_model(tmp_path / "merged").model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("language_model.layers" in name and "_proj" in name for name in changed)
    if head == "step":
        assert after["score.weight"].abs().amax(1).min() > 0


def numbers(checkpoint: Checkpoint, solutions: list[tuple[Problem, list[Step]]]) -> list[float]:
    """All numbers in the scores of all steps."""
    scores = [score for of_solution in score_steps(checkpoint, solutions) for score in of_solution]
    assert None not in scores
    return [x for score in scores for x in dataclasses.astuple(score) if x is not None]


@pytest.mark.parametrize("head", ["step", "verdict", "implicit"])
def test_a_run_that_died_goes_on_with_the_weights_that_it_had(
    dataset: Path, tiny_backbone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: Any
) -> None:
    """The family stores its weights under other names."""
    rows, backbone = RowsConfig(batch_tokens=700), str(tiny_backbone("qwen2_5_vl"))
    loss = LossConfig(value=0.5 if head == "step" else 0.0, labels="outcome" if head == "implicit" else "soft")
    fields = {"rows": rows, "held_out": 0.2, "checkpoint_every": 2, "loss": loss}
    whole = PrmConfig(dataset, tmp_path / "whole", backbone, head, **fields)
    prm.main(whole)
    real, steps = StepTrainer.compute_loss, 0

    def dying(self: StepTrainer, model: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += model.training
        if steps == 4:
            raise MemoryError
        return real(self, model, *args, **kwargs)

    died = dataclasses.replace(whole, run=tmp_path / "died")
    with monkeypatch.context() as patched:
        patched.setattr(StepTrainer, "compute_loss", dying)
        with pytest.raises(MemoryError):
            prm.main(died)
    assert [path.name for path in died.run.glob("checkpoint-*")] == ["checkpoint-2"]
    prm.main(died)
    ends = [load_reward_model(config.run).model.state_dict() for config in (whole, died)]
    start = load_reward_model(backbone, new_head=head).model.state_dict()
    assert any(not torch.equal(start[name], ends[0][name]) for name in start if "language_model" in name)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("bits", [4, 8])
def test_adapters_are_trained_on_a_quantized_backbone(
    dataset: Path, tmp_path: Path, bits: int, problems: list[Problem]
) -> None:
    rows = RowsConfig(batch_tokens=700)
    folder = tmp_path / "backbone"  # widths that the 4-bit CPU kernels accept
    processor = qwen2_processor(transformers.Qwen2_5_VLProcessor, [problem.question for problem in problems])
    text = {"hidden_size": 128, "intermediate_size": 256, "rope_parameters": mrope(8, 12, 12)}
    vision = {**QWEN_TOWER, "patch_size": 14, "out_hidden_size": 128, "fullatt_block_indexes": [1]}
    write_qwen(folder, transformers.Qwen2_5_VLForConditionalGeneration, processor, text, vision)
    config = PrmConfig(dataset, tmp_path / "run", str(folder), rows=rows, held_out=0.2, bits=bits)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot be trained without adapters; set lora_rank"):
        prm.main(config)
    config = dataclasses.replace(config, lora_rank=4)
    made = prm.new_model(config).model.model
    up, loaded = made.language_model.layers[0].mlp.up_proj, {4: torch.uint8, 8: torch.int8}[bits]
    assert up.weight.dtype == loaded
    if bits == 4:
        assert (up.weight.quant_type, up.compute_dtype) == ("nf4", torch.bfloat16)
    assert made.visual.blocks[0].mlp.up_proj.weight.dtype == torch.float32
    prm.main(config)
    asked = [(problems[0], solved(problems[0]))]
    (whole,), few = score(load_reward_model(tmp_path / "run"), asked), load_reward_model(tmp_path / "run", bits=bits)
    assert few.model.model.language_model.layers[0].mlp.up_proj.weight.dtype == loaded
    assert score(few, asked)[0] == pytest.approx(whole, abs=0.05)
    assert score(few, asked)[0] != whole


def test_rows_carry_the_datasets_labels(dataset: Path, inputs: InputBuilder) -> None:
    for tree in load_trees(dataset, RowsConfig(max_paths_per_tree=6)):
        assert len(tree) <= 6
        for path in tree:
            row = labelled_row([path], inputs, LossConfig(), {})
            assert len(row.targets) == len(row.row.step_ends) == len(path.steps)
            assert [None if t == IGNORE else t for t in row.targets] == [label.target for label in path.labels]
        whole = labelled_row(tree, inputs, LossConfig(), {})
        assert sum(whole.weights) == sum(len(path.steps) for path in tree)
        assert len(whole.targets) == len({node for path in tree for node in path.nodes})
    rows = [labelled_row([p], inputs, LossConfig(), {}) for p in tree]
    batch = batch_rows(rows, inputs)
    for of_batch, row in zip(batch["labels"], rows, strict=True):  # each row keeps its own targets, exact zeros too
        assert of_batch[: len(row.targets)].tolist() == pytest.approx(row.targets)
    assert batch["labels"].shape == batch["step_ends"].shape == batch["error_kinds"].shape
    assert (batch["mm_token_type_ids"] == 1).any()
    assert KIND_INDEX["action"] == OUTPUTS.index("perception")


def test_what_comes_after_a_first_error_is_left_out_masked_or_kept(dataset: Path) -> None:
    def targets(after_first_error: str) -> list[list[float | None]]:
        rows = RowsConfig(after_first_error=after_first_error)  # type: ignore[arg-type]
        return [[label.target for label in p.labels] for tree in load_trees(dataset, rows) for p in tree]

    cut = 0
    for kept, masked, stopped in zip(targets("keep"), targets("mask"), targets("stop"), strict=True):
        wrong = [t is not None and t < 0.5 for t in kept]
        end = wrong.index(True) + 1 if True in wrong else len(kept)
        assert stopped == kept[:end]
        assert masked == kept[:end] + [None] * (len(kept) - end)
        cut += len(kept) > end
    assert cut > 5


def test_an_uncertain_step_stays_in_its_solution_without_loss(dataset: Path) -> None:
    def targets(uncertain: tuple[float, float] | None) -> list[float | None]:
        rows = RowsConfig(after_first_error="keep", uncertain=uncertain)
        return [label.target for tree in load_trees(dataset, rows) for path in tree for label in path.labels]

    known = targets(None)
    low, high = 0.1, 0.9
    masked = targets((low, high))
    assert masked == [None if t is not None and low < t < high else t for t in known]
    assert masked.count(None) > known.count(None)


def test_a_row_without_history_reads_each_step_after_the_prompt_and_keeps_its_label(
    dataset: Path, inputs: InputBuilder
) -> None:
    """A step's tokens are those that it has when nothing was written before it."""
    whole, apart = (load_trees(dataset, RowsConfig(history=history)) for history in ("kept", "removed"))
    for tree, steps in zip(whole, apart, strict=True):
        every = [(n, s, la) for p in tree for n, s, la in zip(p.nodes, p.steps, p.labels, strict=True)]
        assert [(*p.nodes, *p.steps, *p.labels) for p in steps] == every
        before, after = (labelled_row(one, inputs, LossConfig(), {}) for one in (tree, steps))
        for end, step in zip(
            after.row.step_ends, dict(zip((n for n, *_ in every), steps, strict=True)).values(), strict=True
        ):
            alone = labelled_row([step], inputs, LossConfig(), {}).row
            back, ids = end, [after.row.ids[end]]
            while back:  # to the first token of the row, which begins the prompt
                back = after.row.before[back]
                ids.append(after.row.ids[back])
            assert tuple(ids[::-1]) == alone.ids[: alone.step_ends[0] + 1]
        assert sorted(zip(after.targets, after.weights, strict=True)) == sorted(
            zip(before.targets, before.weights, strict=True)
        )
    assert any(len(path.steps) > 2 for tree in whole for path in tree)


def test_a_row_without_words_has_the_labels_of_its_steps(dataset: Path, inputs: InputBuilder) -> None:
    whole, removed = (load_trees(dataset, RowsConfig(words=words)) for words in ("kept", "removed"))
    for tree, cut in zip(whole, removed, strict=True):
        assert [p.steps for p in cut] == [ablated(p.steps, "removed") for p in tree]
        assert [p.steps for p in cut] != [p.steps for p in tree]
        assert [(p.nodes, p.labels, p.right) for p in cut] == [(p.nodes, p.labels, p.right) for p in tree]
        before, after = (labelled_row(one, inputs, LossConfig(), {}) for one in (tree, cut))
        assert after.targets == before.targets


def test_a_row_without_images_has_neither_images_nor_crops(dataset: Path, inputs: InputBuilder) -> None:
    whole, blind = (load_trees(dataset, RowsConfig(images=images)) for images in ("kept", "removed"))
    for tree, cut in zip(whole, blind, strict=True):
        assert [(p.nodes, p.labels, p.right) for p in cut] == [(p.nodes, p.labels, p.right) for p in tree]
        assert [[s.text for s in p.steps] for p in cut] == [[s.text for s in p.steps] for p in tree]
        before, after = (labelled_row(one, inputs, LossConfig(), {}) for one in (tree, cut))
        assert inputs.image_token_id in before.row.ids
        assert inputs.image_token_id not in after.row.ids
        assert after.targets == before.targets
    assert any(step.region for tree in whole for path in tree for step in path.steps)


def test_a_target_outside_its_range_is_refused(dataset: Path, inputs: InputBuilder) -> None:
    path = load_trees(dataset, RowsConfig())[0][0]
    labels = tuple(dataclasses.replace(label, target=1.5) for label in path.labels)
    with pytest.raises(ValueError, match=r"target 1.5 is not in \[0, 1\]"):
        labelled_row([dataclasses.replace(path, labels=labels)], inputs, LossConfig(), {})


def test_a_row_whose_columns_do_not_go_together_is_named(dataset: Path) -> None:
    row = read_rows(dataset)[0]
    with pytest.raises(ValueError, match=r"row count_grid@1/train/000000 has (\d+) completions, .* (?!\1)\d+ labels"):
        row_paths({**row, "labels": [*row["labels"], 1.0]})
    with pytest.raises(ValueError, match=r"row .* has an image without bytes; embed the image file"):
        row_paths({**row, "images": [{"bytes": None, "path": "a.png"}]})


def test_over_long_rows_are_refused_or_dropped_and_never_cut(
    dataset: Path, inputs: InputBuilder, tmp_path: Path
) -> None:
    def planned(**rows: Any) -> list[int]:
        config = PrmConfig(dataset, tmp_path, rows=RowsConfig(of="paths", **rows), held_out=0.0)
        train, _ = split_rows(config, inputs)
        return sorted(len(row.row.ids) for batch in train for row in batch)

    sizes = sorted(sized(load_trees(dataset, RowsConfig()), RowsConfig(of="paths"), inputs, LossConfig())[1])
    assert planned() == sizes
    limit = sizes[len(sizes) // 2]
    with pytest.raises(ValueError, match=r"raise rows.longest \(now .*\), or skip them with rows.over_long: drop"):
        planned(longest=limit)
    assert planned(longest=limit, over_long="drop") == [size for size in sizes if size <= limit]


def test_a_solution_longer_than_the_backbone_reads_is_refused_or_dropped(
    dataset: Path, backbone: Path, tmp_path: Path
) -> None:
    """Only the length of a path counts, not the tokens of a tree's parallel branches."""
    inputs, trees = load_inputs(backbone), load_trees(dataset, RowsConfig())
    _, whole = sized(trees, RowsConfig(), inputs, LossConfig())
    _, paths = sized(trees, RowsConfig(of="paths"), inputs, LossConfig())
    inputs.context = max(paths)
    assert max(whole) > inputs.context
    config = PrmConfig(dataset, tmp_path, held_out=0.0)
    split_rows(config, inputs)
    inputs.context -= 1
    with pytest.raises(ValueError, match=rf"a solution of {max(paths)} tokens, and .* reads {inputs.context}"):
        split_rows(config, inputs)
    train, _ = split_rows(dataclasses.replace(config, rows=RowsConfig(over_long="drop")), inputs)
    assert 0 < sum(map(len, train.plan)) < len(trees)


def test_rows_that_were_left_out_are_counted_in_the_metrics(dataset: Path, backbone: Path, tmp_path: Path) -> None:
    inputs = load_inputs(backbone)
    sizes = sized(load_trees(dataset, RowsConfig()), RowsConfig(), inputs, LossConfig())[1]
    limit = sorted(sizes)[len(sizes) // 2]
    rows = RowsConfig(longest=limit, over_long="drop")
    prm.main(PrmConfig(dataset, tmp_path / "run", str(backbone), rows=rows, held_out=0.3))
    known = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    left_out = sum(size > limit for size in sizes)
    assert known["rows_left_out"] + known["eval_rows_left_out"] == left_out > 0


def test_too_few_problems_are_refused(dataset: Path, backbone: Path, inputs: InputBuilder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="with 10 held out leave none to train on; add problems"):
        split_rows(PrmConfig(dataset, tmp_path, held_out=1.0), inputs)


def curriculum(family: str, **kwargs: Any) -> Curriculum:
    return Curriculum((TASKS[family],), **{"proofread": 0, "blind_spots": {}, "slip_rate": 0.0, "seed": 0, **kwargs})


def learnt(taught: Lesson, inputs: InputBuilder) -> str:
    labels = batch_lessons([lesson_row(taught, inputs)], inputs)["labels"][0]
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
    # The id after an uncorrected wrong step has no loss either: it would teach that the step was right.
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


def test_a_blind_spot_that_no_step_is_about_is_refused() -> None:
    refuse_unknown_concepts(curriculum("chart", blind_spots={"height 6": 0.5}))
    with pytest.raises(UserError, match=r"is about 'hieght 6' .*height 6"):
        refuse_unknown_concepts(curriculum("chart", blind_spots={"hieght 6": 0.5}))


def state_at(step: int) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, is_world_process_zero=True)


def test_each_step_stands_once_in_the_metrics_of_a_run_that_was_killed(tmp_path: Path) -> None:
    def train(first: int, last: int) -> None:
        progress, args = Progress(40, {"rows_left_out": 2}), SimpleNamespace(output_dir=str(tmp_path))
        progress.on_train_begin(args, state_at(first), None)
        for step in range(first + 10, last + 1, 10):
            progress.on_log(args, state_at(step), None, {"loss": 1 / step})

    def steps() -> list[int]:
        known, *logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert known == {"step": 0, "rows_left_out": 2}
        return [line["step"] for line in logged]

    train(0, 30)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')
    train(20, 40)  # its last checkpoint was at step 20
    assert steps() == [10, 20, 30, 40]
    Progress(40).on_log(SimpleNamespace(output_dir=str(tmp_path)), state_at(40), None, {"train_runtime": 9.0})
    train(40, 40)  # killed while it wrote its weights
    assert steps() == [10, 20, 30, 40]
    train(0, 10)
    assert steps() == [10]
