"""TRL's stepwise format trains as it is, and a checkpoint rewards TRL's completions as the library scores them."""

import base64
import dataclasses
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Image, List, Value, load_dataset
from PIL import Image as Pillow

from data_synth import convert
from data_synth.formats.config import ConvertConfig
from tests.conftest import solved
from tests.learnt import load_trees
from train.prm import main
from train.reward.config import PrmConfig, RowsConfig
from train.reward.planning import split_rows
from vlprm.data.dataset import read_rows, row_paths
from vlprm.data.trl_format import TrainingRows
from vlprm.images import encoded, open_image, png
from vlprm.integrations.trl import step_reward
from vlprm.model.checkpoint_config import CHECKPOINT_FILE, load_checkpoint_config
from vlprm.model.inputs import InputBuilder
from vlprm.model.reward_loading import load_reward_model
from vlprm.schema import Problem, Step
from vlprm.scoring.aggregate import AGGREGATIONS
from vlprm.scoring.gate import gated
from vlprm.scoring.tree import score
from vlprm.steps import join_steps

Record = dict[str, Any]

STEPS = List(Value("string"))
COLUMNS = {"prompt": Value("string"), "completions": STEPS, "labels": List(Value("bool"))}


def records(problems: list[Problem]) -> list[Record]:
    """Two solutions per problem: one with all steps right, and one with a wrong first step and an unlabelled last
    step."""
    found = []
    for problem in problems:
        steps = [step.text for step in solved(problem)]
        known = {"prompt": problem.question, "images": [open_image(data) for data in problem.images]}
        found.append({**known, "completions": steps, "labels": [True] * len(steps)})
        found.append({**known, "completions": ["It is 7.", *steps], "labels": [False] * len(steps) + [None]})
    return found


def parquet(path: Path, rows: list[Record], columns: Record | None = None) -> Path:
    Dataset.from_list(rows, Features(columns or COLUMNS | {"images": List(Image())})).to_parquet(str(path))
    return path


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def png_bytes(colour: str = "red") -> bytes:
    return png(Pillow.new("RGB", (40, 30), colour))


# --- training


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, backbone: Path, problems: list[Problem]) -> Path:
    folder = tmp_path_factory.mktemp("trl")
    source = parquet(folder / "steps.parquet", records(problems[:5]))
    rows = RowsConfig(batch_tokens=1000)
    main(PrmConfig(source, folder / "prm", str(backbone), rows=rows, held_out=0.2, head_learning_rate=0.1))
    return folder / "prm"


def test_a_parquet_file_of_trls_trains_as_it_is(checkpoint: Path) -> None:
    logs = [json.loads(line) for line in (checkpoint / "metrics.jsonl").read_text().splitlines()]
    assert load_checkpoint_config(checkpoint).provenance["optimizer_steps"] >= 2
    assert logs
    assert load_reward_model(checkpoint).model.score.weight.abs().sum() > 0  # it started at zero
    assert (checkpoint / CHECKPOINT_FILE).exists()


@pytest.mark.parametrize("kind", ["bool", "float32", "float64", "int64"])
def test_labels_are_truth_values_shares_or_null(kind: str, tmp_path: Path) -> None:
    given = [1, 0, None] if kind in ("bool", "int64") else [1.0, 0.25, None]
    row = {"prompt": "What?", "completions": ["one", "two", "three"], "labels": given}
    columns = COLUMNS | {"labels": List(Value(kind))}
    (path,) = load_trees(parquet(tmp_path / "d.parquet", [row], columns), RowsConfig())[0]
    assert [label.target for label in path.labels] == [None if v is None else float(v) for v in given]
    assert (path.nodes, path.right, path.problem.images) == ((0, 1, 2), None, ())


def test_a_file_trained_directly_is_the_same_file_converted(problems: list[Problem], tmp_path: Path) -> None:
    source = parquet(tmp_path / "s.parquet", records(problems[:3]))
    convert.main(ConvertConfig(source, "trl", "vlprm", tmp_path / "d.parquet"))
    assert list(TrainingRows(source)) == read_rows(tmp_path / "d.parquet") == list(TrainingRows(tmp_path / "d.parquet"))


def test_one_image_a_column_an_id_an_answer_and_a_prompt_in_messages(tmp_path: Path) -> None:
    row = {
        "id": 7,
        "answer": "3",
        "completions": ["one"],
        "labels": [True],
        "image": Pillow.new("RGB", (40, 30), "red"),
    }
    columns = {k: COLUMNS[k] for k in ("completions", "labels")} | {
        "id": Value("int64"), "answer": Value("string"), "image": Image(),
        "prompt": List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})}),
    }  # fmt: skip
    row["prompt"] = [
        {"role": "system", "content": [{"type": "text", "text": "Think."}]},
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "How many?"}]},
    ]
    (path,) = row_paths(*TrainingRows(parquet(tmp_path / "d.parquet", [row], columns)))
    problem = path.problem
    assert (problem.id, problem.question, problem.answer, len(problem.images)) == ("7", "How many?", "3", 1)


def test_lines_name_their_images_by_paths_beside_them(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png_bytes())
    row = {"prompt": "<image>\nWhat?", "completions": ["one"], "labels": [0.5], "images": ["images/a.png"]}
    text_only = {"prompt": "What?", "completions": ["one"], "labels": [True]}
    first, second = TrainingRows(lines(tmp_path / "d.jsonl", [row, text_only]))
    assert (first["prompt"], first["images"][0]["bytes"], first["labels"]) == ("What?", png_bytes(), [0.5])
    assert (second["prompt"], second["images"]) == ("What?", [])


def test_text_alone_trains_too(backbone: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"What is {n}?", "completions": ["It is", f"{n}"], "labels": [True, n % 2 == 0]} for n in range(9)
    ]
    config = PrmConfig(lines(tmp_path / "d.jsonl", rows), tmp_path / "prm", str(backbone))
    main(dataclasses.replace(config, rows=RowsConfig(batch_tokens=60)))
    assert load_checkpoint_config(tmp_path / "prm").provenance["optimizer_steps"] >= 2


def test_solutions_of_one_problem_are_one_tree(problems: list[Problem], tmp_path: Path) -> None:
    """The tree has the name of the first solution; a step that they share, with the same label, occurs once."""
    rows = [{**row, "id": f"row {n}"} for n, row in enumerate(records(problems[:4]))]
    columns = COLUMNS | {"images": List(Image()), "id": Value("string")}
    found = load_trees(parquet(tmp_path / "d.parquet", rows, columns), RowsConfig())
    assert [len(tree) for tree in found] == [2] * 4
    assert [{path.problem.id for path in tree} for tree in found] == [{f"row {n}"} for n in (0, 2, 4, 6)]
    assert [path.problem.question for path, _ in found] == [problem.question for problem in problems[:4]]


def test_what_a_row_a_solution_shares_is_merged_where_its_labels_agree(tmp_path: Path, inputs: InputBuilder) -> None:
    solutions = [("a b c", [1, 1, 0]), ("a b d", [1, 1, 1]), ("a b e", [1, 0.5, 1]), ("x b c", [1, 1, 0])]
    rows = [{"prompt": "?", "completions": text.split(), "labels": labels} for text, labels in solutions]
    given = lines(tmp_path / "d.jsonl", rows)
    (tree,) = load_trees(given, RowsConfig())
    assert [path.nodes for path in tree] == [(0, 1, 2), (6, 7, 8), (0, 4, 5), (0, 1, 3)], "most new steps first"
    assert [" ".join(s.text for s in path.steps) for path in tree] == ["a b c", "x b c", "a b e", "a b d"]
    (cut,) = load_trees(given, RowsConfig(max_paths_per_tree=2))
    assert cut == tree[:2]
    with pytest.raises(ValueError, match=r"no problem of .*d\.jsonl has solutions .*; leave out rows.mixed"):
        split_rows(PrmConfig(given, tmp_path / "run", rows=RowsConfig(mixed=True)), inputs)


# --- what cannot be trained on

BAD: dict[str, tuple[Callable[[Record], Any], str]] = {
    "labels too many": (lambda r: r["labels"].append(True), "3 labels for 2 steps; give one label per step"),
    "labels too few": (lambda r: r["labels"].pop(), "1 labels for 2 steps; give one label per step"),
    "a label above one": (lambda r: r.update(labels=[True, 1.5]), r"label 1.5 is not a number in \[0, 1\]; scale it"),
    "a label below zero": (lambda r: r.update(labels=[-1, 1]), r"label -1 is not a number in \[0, 1\]; scale it"),
    "a label that is none": (
        lambda r: r.update(labels=["+", "-"]),
        r"label '\+' is not a number in \[0, 1\]; scale it",
    ),
    "a mark and no image": (lambda r: r.update(images=[]), "0 images for 1 marks in its prompt; give one image"),
    "an image too many": (lambda r: r["images"].append("a.png"), "2 images for 1 marks in its prompt; give one image"),
    "an image that is null": (lambda r: r.update(images=[None]), "one of its images is null; give the image"),
    "an image that is not there": (lambda r: r.update(images=["b.png"]), "no image 'b.png' in the folder .* copy it"),
    "an image elsewhere": (lambda r: r.update(images=["/etc/hosts"]), "/etc/hosts leads out of .*; copy it into"),
    "an image that is none": (lambda r: r.update(images=["d.jsonl"]), "image cannot be read .* create the file again"),
    "an empty step": (lambda r: r["completions"].__setitem__(0, ""), "one of its steps is empty"),
    "no steps": (lambda r: r.update(completions=[], labels=[]), "no list of steps; give one text per step"),
    "no prompt": (lambda r: r.pop("prompt"), "has no prompt; data_synth.convert reads other formats"),
    "a tree": (lambda r: r.update(parents=[-1, -1]), "has parents, a column of trees; write trees with data_synth"),
    "turns": (
        lambda r: r.update(prompt=[{"role": "user", "content": "a"}] * 2),
        "not a single user turn; give only the question",
    ),
    "a prompt that is none": (lambda r: r.update(prompt=3), "neither a text nor a list of objects; make it one"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_row_is_named_with_its_id_and_the_fix(what: str, tmp_path: Path) -> None:
    spoil, said = BAD[what]
    (tmp_path / "a.png").write_bytes(png_bytes())
    good = {"prompt": "<image>What?", "completions": ["a", "b"], "labels": [True, None], "images": ["a.png"]}
    bad = json.loads(json.dumps(good)) | {"id": "q17"}
    spoil(bad)
    source = lines(tmp_path / "d.jsonl", [good, bad])
    with pytest.raises(ValueError, match=rf"d\.jsonl, row 2 \(id q17\): [^\n]*{said}"):
        load_trees(source, RowsConfig())


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no dataset .*none\.jsonl; give a file"):
        list(TrainingRows(tmp_path / "none.jsonl"))
    with pytest.raises(ValueError, match=r"no dataset .*none\.parquet"):
        list(TrainingRows(tmp_path / "none.parquet"))
    with pytest.raises(ValueError, match=r"d\.jsonl has no rows; write one solution per row"):
        list(TrainingRows(lines(tmp_path / "d.jsonl", [])))
    (tmp_path / "d.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"d\.jsonl, line 1 is not JSON; correct it"):
        list(TrainingRows(tmp_path / "d.jsonl"))
    Dataset.from_list([{"question": "q", "completions": ["a"]}]).to_parquet(str(tmp_path / "o.parquet"))
    with pytest.raises(
        ValueError, match=r"in neither our format nor TRL's: it has the columns .* and lacks labels, prompt; rename"
    ):
        list(TrainingRows(tmp_path / "o.parquet"))
    row = {"prompt": "q", "completions": ["a", "b"], "labels": [True, True], "parents": [-1, -1]}
    Dataset.from_list([row]).to_parquet(str(tmp_path / "t.parquet"))
    with pytest.raises(ValueError, match="lacks the columns answer, error_kinds"):  # siblings are not a chain
        list(TrainingRows(tmp_path / "t.parquet"))


# --- the reward


@pytest.fixture(scope="module")
def scored(checkpoint: Path, problems: list[Problem]) -> tuple[list[tuple[Problem, list[Step]]], list[list[float]]]:
    solutions = [(problem, solved(problem)) for problem in problems[:5]]
    return solutions, score(load_reward_model(checkpoint), solutions)


def test_the_reward_is_what_the_library_scores(checkpoint: Path, scored: Any) -> None:
    solutions, rewards = scored
    prompts, completions = [p.question for p, _ in solutions], [join_steps(steps) for _, steps in solutions]
    stored = [[{"bytes": data, "path": None} for data in p.images] for p, _ in solutions]
    for rule, aggregate in AGGREGATIONS.items():
        reward = step_reward(checkpoint, rule, device="cpu")
        assert reward.__name__ == f"step_reward_{rule}"
        found = reward(prompts=prompts, completions=completions, images=stored, trainer_state=None)
        assert found == pytest.approx([aggregate(of_steps) for of_steps in rewards], abs=1e-5)
    assert len({round(value, 4) for of_steps in rewards for value in of_steps}) > 5  # otherwise equality proves little


def test_an_outcome_is_gated_by_the_steps(checkpoint: Path, scored: Any) -> None:
    """A policy that is trained on step rewards as they are learns to please the reward model."""
    solutions, rewards = scored
    asked = {
        "prompts": [p.question for p, _ in solutions],
        "completions": [join_steps(steps) for _, steps in solutions],
        "images": [[{"bytes": data, "path": None} for data in p.images] for p, _ in solutions],
        "answer": ["1", "1", "1", "0", "x"],
    }

    def outcome(answer: list[str], **columns: Any) -> list[float | None]:
        return [{"1": 1.0, "0": 0.0}.get(one) for one in answer]

    reward = step_reward(checkpoint, device="cpu", outcome=outcome)
    assert reward.__name__ == "gated_outcome"
    assert reward(**asked) == [gated(1.0, rewards[0]), gated(1.0, rewards[1]), gated(1.0, rewards[2]), 0.0, None]
    with pytest.raises(ValueError, match="leave out aggregation, or outcome"):
        step_reward(checkpoint, "min", outcome=outcome)


def test_the_reward_takes_what_trls_trainer_hands_over(checkpoint: Path, scored: Any, tmp_path: Path) -> None:
    """It takes messages, decoded images, and images given twice: in the column, and in the prompt, where the trainer
    puts them."""
    solutions, rewards = scored
    rows = [{"image": {"bytes": p.images[0], "path": None}} for p, _ in solutions]
    Dataset.from_list(rows, Features({"image": Image()})).to_parquet(str(tmp_path / "d.parquet"))
    column = [row["image"] for row in load_dataset("parquet", data_files=str(tmp_path / "d.parquet"), split="train")]
    assert isinstance(column[0], Pillow.Image)
    system = {"role": "system", "content": [{"type": "text", "text": "Think."}]}
    prompts = [
        [system, {"role": "user", "content": [{"type": "image", "image": i}, {"type": "text", "text": p.question}]}]
        for i, (p, _) in zip(column, solutions, strict=True)
    ]
    completions = [[{"role": "assistant", "content": join_steps(steps)}] for _, steps in solutions]
    reward = step_reward(checkpoint, device="cpu")
    assert reward.__name__ == "step_reward_min"  # the rule in vlprm.json
    found = reward(prompts, completions, image=column, completion_ids=[[1]] * 5)
    assert found == pytest.approx([min(of_steps) for of_steps in rewards], abs=1e-5)


def test_what_cannot_be_scored_has_no_reward(checkpoint: Path, scored: Any, caplog: pytest.LogCaptureFixture) -> None:
    (problem, steps), reward = scored[0][0], step_reward(checkpoint, device="cpu")
    good = (problem.question, join_steps(steps), [{"bytes": problem.images[0]}])
    with_video = [{"type": "video", "video": "a.mp4"}, {"type": "text", "text": good[0]}]
    url = "data:image/png;base64," + base64.b64encode(problem.images[0]).decode()
    with_url = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": good[0]}]
    cut = Pillow.open(io.BytesIO(problem.images[0][:-200]))
    call = [{"role": "assistant", "content": None, "tool_calls": []}]
    rows = [
        good,
        (good[0], " \n\n", good[2]),
        (good[0], call, good[2]),
        (good[0], [*call, {"role": "tool", "content": "4"}], good[2]),
        ("<image>" + good[0], good[1], None),
        (good[0], good[1], [{"bytes": png_bytes()[:60]}]),
        (good[0], good[1], ["a.png"]),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], good[1], good[2]),
        ("<|im_end|>", good[1], good[2]),
        ("How \ud83d?", good[1], good[2]),
        ([{"role": "user", "content": with_video}], good[1], good[2]),
        (good[0], [{"role": "assistant", "content": good[1], "tool_calls": [{"id": 1}]}], good[2]),
        (good[0], good[1], [cut]),
        (good[0], good[1] + " \ud83d", good[2]),
        ([{"role": "user", "content": with_url}], good[1], None),
        ("<image>" + good[0], [{"role": "assistant", "content": good[1]}], good[2]),
        (good[0], good[1], []),
    ]
    caplog.set_level(logging.WARNING)
    prompts, completions, images = zip(*rows, strict=True)
    found = reward(prompts, completions, images=list(images))
    assert [value is None for value in found] == [False, *[True] * 12, *[False] * 4]
    assert found[14:16] == pytest.approx([found[0]] * 2, abs=1e-5)
    assert "12 of 17 completions have no reward; the first: its completion is empty" in caplog.text
    assert reward(["q"], [""]) == [None]
    assert reward(["q", "q"], ["a", "a"], videos=[["a.mp4"], None])[0] is None
    twice = reward([good[0]] * 2, [good[1]] * 2, images=[[], good[2]], image=[good[2][0], None])
    assert twice == pytest.approx([found[0]] * 2, abs=1e-5)


def test_a_reward_that_cannot_be_made_is_refused(checkpoint: Path, backbone: Path) -> None:
    with pytest.raises(ValueError, match="unknown aggregation 'best'; give one of last, min"):
        step_reward(checkpoint, "best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no reward head"):
        step_reward(backbone, device="cpu")


def test_an_encoded_image_has_the_pixels_of_its_own_file() -> None:
    """A rotated photo, an image with an alpha channel, and a CMYK image, as datasets and as Pillow open them."""
    exif = Pillow.Exif()
    exif[0x0112] = 6
    turned, clear, printed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Pillow.linear_gradient("L").resize((40, 30)).save(turned, "JPEG", exif=exif)
    Pillow.new("RGBA", (8, 8), (255, 0, 0, 100)).save(clear, "PNG")
    Pillow.new("CMYK", (8, 8), (10, 200, 30, 40)).save(printed, "JPEG")
    features = Features({"image": Image()})
    for file in (turned, clear, printed):
        data = file.getvalue()
        decoded = Dataset.from_list([{"image": {"bytes": data, "path": None}}], features)[0]["image"]
        for image in (decoded, Pillow.open(io.BytesIO(data))):
            assert open_image(encoded(image)).tobytes() == open_image(data).tobytes()
