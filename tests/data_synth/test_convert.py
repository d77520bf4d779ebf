"""Datasets in and out: every label of the field's formats is kept, and unreadable records are dropped and counted."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset

from data_synth import convert
from data_synth.formats import conversion
from data_synth.formats.config import ConvertConfig
from data_synth.formats.conversion import READERS
from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from tests.teacher import TeacherEngine
from vlprm.answers import is_correct
from vlprm.data.dataset import read_rows, row_paths, tree_row, write_dataset
from vlprm.data.importing import ImageFolder
from vlprm.errors import RecordError
from vlprm.images import png
from vlprm.labels.fusion import fuse_tree
from vlprm.labels.judge_reliability import TreeEvidence
from vlprm.labels.sources import Reliability
from vlprm.schema import StepTree, TreeNode
from vlprm.tasks import TASKS

DATA = Path(os.environ.get("VLPRM_DATA", Path(__file__).parents[3] / "shared" / "data")) / "step_labels"


@pytest.fixture
def samples() -> Path:
    if not DATA.is_dir() and not os.environ.get("CI"):
        pytest.skip(f"{DATA} is not there; set VLPRM_DATA to the folder of packaged samples")
    return DATA


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of our own: trees with zooms."""
    rows = []
    for name in ("chart", "fine_print"):
        problem = TASKS[name].problem("train", 1)
        tree = asyncio.run(search(problem, TeacherEngine(0.3), TreeSearchConfig(estimator="flat"), seed=1))
        right = [is_correct(a, str(problem.answer), problem.answer_type) for _, a in tree.leaves]
        paths = [(tree.path(leaf), r) for (leaf, _), r in zip(tree.leaves, right, strict=True)]
        labels = fuse_tree(TreeEvidence.of(tree), paths, "mc", Reliability())
        nodes = tuple(TreeNode(n.step, n.parent, label) for n, label in zip(tree.nodes, labels, strict=True))
        made = StepTree(tree.problem_id, nodes, tree.leaves, tree.root)
        rows.append(tree_row(problem, made, right, {"rule": "mc"}))
    path = tmp_path_factory.mktemp("own") / "own.parquet"
    write_dataset(path, rows)
    return path


def converted(source: Path, name: str, to: str, target: Path, **changes: Any) -> Path:
    convert.main(ConvertConfig(source, name, to, target, **changes))  # type: ignore[arg-type]
    return target


def lines(path: Path) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(png_bytes())
    (folder / "cut.png").write_bytes(png_bytes()[:60])
    (tmp_path / "outside.png").write_bytes(png_bytes())
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    return folder


def png_bytes() -> bytes:
    from PIL import Image

    return png(Image.new("RGB", (40, 30), (200, 20, 20)))


# --- real samples


def test_math_shepherd_keeps_every_character_and_sign(samples: Path, tmp_path: Path) -> None:
    source = samples / "samples_math-shepherd.jsonl"
    rows = read_rows(converted(source, "math_shepherd", "vlprm", tmp_path / "d.parquet"))
    for record, row in zip(lines(source), rows, strict=True):
        assert "ки".join([row["prompt"] + row["completions"][0], *row["completions"][1:], ""]).strip() == (
            record["input"].strip()
        )
        signs = re.findall(r"([+-])(?:\n|$)", record["label"])
        assert ["+" if target else "-" for target in row["labels"]] == signs
        assert row["leaves"][0]["right"] == (signs[-1] == "+")


def test_prm800k_keeps_alternatives_as_siblings_and_neutral_apart_from_unrated(samples: Path, tmp_path: Path) -> None:
    source = samples / "samples_prm800k.jsonl"
    rows = read_rows(converted(source, "prm800k", "vlprm", tmp_path / "d.parquet"))
    for record, row in zip(lines(source), rows, strict=True):
        said = [
            option
            for step in record["label"]["steps"]
            for option in [
                *(step["completions"] or []),
                *([step["human_completion"]] if step["human_completion"] else []),
            ]
        ]
        assert row["completions"] == [option["text"] for option in said]
        assert row["labels"] == [{1: 1.0, -1: 0.0}.get(option.get("rating")) for option in said]
        rules = [e["label"]["rule"] for e in json.loads(row["evidence"])]
        assert [rule == "prm800k neutral" for rule in rules] == [option.get("rating") == 0 for option in said]
        assert max(row["parents"].count(p) for p in set(row["parents"])) == max(
            len(step["completions"] or []) + bool(step["human_completion"]) for step in record["label"]["steps"]
        )


@pytest.mark.parametrize("name", ["samples_math-aps", "samples_math-aps-tree"])
def test_omega_prm_keeps_every_value_and_prefix(samples: Path, tmp_path: Path, name: str) -> None:
    source = samples / f"{name}.jsonl"
    rows = read_rows(converted(source, "omega_prm", "vlprm", tmp_path / "d.parquet"))
    for record, row in zip(lines(source), rows, strict=True):
        told = record["reasoning_steps"]
        if isinstance(told, list):
            expected = [
                (s["solution_prefix"], s["mc_value"]) for s in told if s["solution_prefix"] != record["question"]
            ]
            texts = []
            for n, text in enumerate(row["completions"]):
                parent = row["parents"][n]
                texts.append((texts[parent] if parent >= 0 else record["question"]) + text)
        else:
            expected, waiting = [], list(told["children"])
            for child in waiting:
                expected.append((child["text"], child["mc_value"]))
                waiting += child.get("children", [])
            texts = row["completions"]
        assert list(zip(texts, row["labels"], strict=True)) == [(text, pytest.approx(v)) for text, v in expected]


def test_vl_prm_rollouts_keep_their_counts(samples: Path, tmp_path: Path) -> None:
    """The images are not packaged: the test puts stand-ins where the records look for them."""
    source = samples / "vlprm300k_vqav2_rollouts.jsonl"
    for record in lines(source):
        path = tmp_path / record["image"]
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(png_bytes())
    rows = read_rows(converted(source, "vl_prm300k", "vlprm", tmp_path / "d.parquet", images=tmp_path))
    assert len(rows) == len(lines(source)) == 21
    for record, row in zip(lines(source), rows, strict=True):
        counts = [(s["num_mc_correct"], s["num_mc_total"]) for s in record["steps_with_score"]]
        labels = [e["label"] for e in json.loads(row["evidence"])]
        assert [(label["mc_correct"], label["mc_total"]) for label in labels] == counts
        assert row["labels"] == [pytest.approx(c / t) for c, t in counts]
        assert len(row["images"]) == 1


# --- formats without a sample

FIXTURES: dict[str, tuple[dict, list[float | None]]] = {  # type: ignore[type-arg]
    "vl_prm300k": (
        {
            "id": "1", "image": "a.png", "question": "What?", "rollout_ground_truth_answer": "3",
            "first_incorrect_step": ["Visual Elements", 1],
            "conversations": [
                {"role": "system", "content": "judge"}, {"role": "user", "content": "What?\none"},
                {"role": "assistant", "content": "+"}, {"role": "user", "content": "two"},
                {"role": "assistant", "content": "-"},
            ],
            "steps_with_score": [
                {"step": "one", "score": 0.5, "num_mc_correct": 8, "num_mc_total": 16},
                {"step": "two", "score": 0.0, "num_mc_correct": 0, "num_mc_total": 16},
                {"step": "three", "score": 0.0, "num_mc_correct": 0, "num_mc_total": 16},
            ],
        },
        [1.0, 0.0, None],
    ),
    "visual_prm400k": (
        {
            "image": "a.png", "question": "What?", "answer": "3", "num_mc_sequences": 16, "response": "one\n\ntwo",
            "steps_with_score": [{"step": "one", "score": 0.75, "num_mc_correct": 12},
                                 {"step": "two", "score": 0.25, "num_mc_correct": 4}],
        },
        [0.75, 0.25],
    ),
    "mm_prm": (
        {
            "question": "What?", "answer": "3", "image_path": "a.png", "mc_value": 0.5, "visit_count": 2,
            "children": [
                {"partial_solution": "one", "mc_value": 0.75,
                 "children": [{"partial_solution": "two", "mc_value": 1.0}]},
                {"partial_solution": "other", "mc_value": 0.0, "children": []},
            ],
        },
        [0.75, 0.0, 1.0],
    ),
    "trl": (
        {"prompt": "What?", "completions": ["one", "two"], "labels": [True, None], "images": ["a.png"]}, [1.0, None]
    ),
    "visual_process_bench": (
        {"image": ["a.png"], "question": "What?", "answer": "3", "policy_model": "x", "data_source": "MMMU",
         "response": {"steps": ["one", "two", "three"], "process_correctness": [1, 0, -1]}},
        [1.0, None, 0.0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FIXTURES)
def test_the_documented_fields_are_read(name: str, images: Path, tmp_path: Path) -> None:
    record, targets = FIXTURES[name]
    source = write_lines(tmp_path / "s.jsonl", [record])
    (row,) = read_rows(converted(source, name, "vlprm", tmp_path / "d.parquet", images=images))
    assert row["labels"] == targets
    assert row["images"][0]["bytes"] == png_bytes()
    if name == "vl_prm300k":
        assert row["error_kinds"] == [None, "perception", None]
    if name == "mm_prm":
        assert row["parents"] == [-1, -1, 0]
    if name == "visual_prm400k":
        labels = [e["label"] for e in json.loads(row["evidence"])]
        assert [(label["mc_correct"], label["mc_total"]) for label in labels] == [(12, 16), (4, 16)]


def test_turns_with_signs_and_soft_lists_are_read(images: Path, tmp_path: Path) -> None:
    opening = "### Question:\n<image>\nWhat?\n\n### Solution Process:\none"
    turns = [("system", "judge"), ("human", opening), ("gpt", "+"), ("human", "two"), ("gpt", "-")]
    record = {"image": "a.png", "conversations": [{"from": who, "value": what} for who, what in turns]}
    row = READERS["visual_prm400k"](record, ImageFolder(images))
    assert (row["prompt"], row["completions"], row["labels"]) == ("What?", ["one", "two"], [1.0, 0.0])


# --- out, and back again


def test_paths_and_trees_hold_the_same(own: Path, tmp_path: Path) -> None:
    rows = read_rows(converted(own, "vlprm", "vlprm_paths", tmp_path / "p.parquet"))
    before = [path for row in read_rows(own) for path in row_paths(row)]
    after = [path for row in rows for path in row_paths(row)]
    assert len(rows) == len(after) == len(before)
    for a, b in zip(before, after, strict=True):
        assert (a.steps, a.labels, a.right, a.problem.images) == (b.steps, b.labels, b.right, b.problem.images)
    again = read_rows(converted(own, "vlprm", "vlprm", tmp_path / "same.parquet"))
    assert again == read_rows(own)


def test_trl_keeps_every_hard_label(own: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    target = converted(own, "vlprm", "trl", tmp_path / "trl.parquet", threshold=0.5)
    assert "trl cannot hold: counts (" in caplog.text
    paths = [path for row in read_rows(own) for path in row_paths(row)]
    records = list(load_dataset("parquet", data_files=str(target), split="train"))
    for path, record in zip(paths, records, strict=True):
        assert record["completions"] == [step.text for step in path.steps]
        targets = [label.target for label in path.labels]
        assert record["labels"] == [None if t is None else t > 0.5 for t in targets]
    back = read_rows(converted(target, "trl", "vlprm", tmp_path / "back.parquet"))
    assert [row["labels"] for row in back] == [[None if v is None else float(v) for v in r["labels"]] for r in records]
    assert [row["images"] for row in back] == [r["images"] for r in records]


def test_a_threshold_cuts_alike_before_and_after_a_dataset_is_stored(tmp_path: Path) -> None:
    """A stored target has 32 bits: 0.1 comes back larger, and 0.7 smaller, than it was."""
    record = {"prompt": "What?", "completions": ["one", "two", "three"], "labels": [0.1, 0.7, None]}
    source = write_lines(tmp_path / "s.jsonl", [record])
    stored = converted(source, "trl", "vlprm", tmp_path / "d.parquet")
    for threshold, hard in ((0.1, [False, True, None]), (0.7, [False, False, None]), (0.69, [False, True, None])):
        for n, (path, name) in enumerate(((source, "trl"), (stored, "vlprm"))):
            target = converted(path, name, "trl", tmp_path / f"{threshold}-{n}.jsonl", threshold=threshold)
            assert lines(target)[0]["labels"] == hard


def test_columns_that_somebody_added_are_left_out(own: Path, tmp_path: Path) -> None:
    Dataset.from_list([row | {"split": "train"} for row in read_rows(own)]).to_parquet(tmp_path / "added.parquet")
    again = converted(tmp_path / "added.parquet", "vlprm", "vlprm", tmp_path / "again.parquet")
    assert read_rows(again) == read_rows(own)


def test_turns_go_out_and_come_back(own: Path, tmp_path: Path) -> None:
    target = converted(own, "vlprm", "chat", tmp_path / "chat.parquet")
    back = read_rows(converted(target, "visual_prm400k", "vlprm", tmp_path / "back.parquet"))
    paths = [path for row in read_rows(own) for path in row_paths(row)]
    kept = [[label.target for label in path.labels if label.target is not None] for path in paths]
    gapless = [
        k for k, p in zip(kept, paths, strict=True) if k and all(x.target is not None for x in p.labels[: len(k)])
    ]
    assert [row["labels"] for row in back] == [[float(t > 0) for t in targets] for targets in gapless]
    sources = {row["prompt"]: row["images"] for row in read_rows(own)}
    assert [row["images"] for row in back] == [sources[row["prompt"]] for row in back]


def test_text_goes_to_lines_and_images_do_not(own: Path, samples: Path, tmp_path: Path) -> None:
    source = samples / "samples_math-shepherd.jsonl"
    target = converted(source, "math_shepherd", "trl", tmp_path / "trl.jsonl")
    assert [len(r["labels"]) for r in lines(target)] == [r["input"].count("ки") for r in lines(source)]
    with pytest.raises(ValueError, match=r"cannot hold images or evidence; give a target that ends in \.parquet"):
        converted(own, "vlprm", "trl", tmp_path / "own.jsonl")
    assert not (tmp_path / "own.jsonl").exists()


# --- what cannot be read

BROKEN: dict[str, tuple[str, Callable[[dict], Any]]] = {  # type: ignore[type-arg]
    "label_count": ("trl", lambda r: r["labels"].pop()),
    "label_value": ("trl", lambda r: r["labels"].__setitem__(0, 7)),
    "empty_step": ("trl", lambda r: r["completions"].__setitem__(0, "")),
    "empty_step ": ("visual_process_bench", lambda r: r["response"]["steps"].__setitem__(0, " \n")),
    "half_character": ("trl", lambda r: r["completions"].__setitem__(0, "a \ud83d")),
    "message_part": ("trl", lambda r: r.update(prompt=[{"role": "user", "content": [{"type": "video"}]}])),
    "image_url": ("trl", lambda r: r.update(images=["https://x.org/a.png"])),
    "no_prompt": ("trl", lambda r: r.pop("prompt")),
    "prompt_type": ("trl", lambda r: r.update(prompt=3)),
    "malformed": ("visual_process_bench", lambda r: r["response"].update(process_correctness=[[]])),
    "image_missing": ("trl", lambda r: r.update(images=["none.png"])),
    "image_unreadable": ("trl", lambda r: r.update(images=["cut.png"])),
    "image_outside_folder": ("trl", lambda r: r.update(images=["../outside.png"])),
    "count_value": ("visual_prm400k", lambda r: r["steps_with_score"][0].update(num_mc_correct=17)),
}


@pytest.mark.parametrize("cause", BROKEN)
def test_a_record_that_cannot_be_read_is_dropped_and_counted(
    cause: str, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name, spoil = BROKEN[cause]
    good, bad = (json.loads(json.dumps(FIXTURES[name][0])) for _ in range(2))
    spoil(bad)
    source = write_lines(tmp_path / "s.jsonl", [good, bad, good])
    caplog.set_level(logging.INFO)
    assert len(read_rows(converted(source, name, "vlprm", tmp_path / "d.parquet", images=images))) == 2
    assert f"1 rows dropped: {cause.strip()} 1 (first: line 2)" in caplog.text


BROKEN_ROWS: dict[str, tuple[str, Callable[[dict], Any]]] = {  # type: ignore[type-arg]
    "a path that never ends": ("parent_value", lambda r: r["parents"].__setitem__(0, 0)),
    "a leaf that is not a node": ("leaf_value", lambda r: r["leaves"][0].update(node=99)),
    "a label too few": ("label_count", lambda r: r["labels"].pop()),
    "a label that is not a share": ("label_value", lambda r: r["labels"].__setitem__(0, 1.5)),
    "a label that is not a number": ("label_value", lambda r: r["labels"].__setitem__(0, True)),
    "a kind that is none": ("error_kind_value", lambda r: r["error_kinds"].__setitem__(0, "typo")),
    "evidence that is not JSON": ("malformed", lambda r: r.update(evidence="[")),
    "a step of spaces": ("empty_step", lambda r: r["completions"].__setitem__(0, " ")),
    "a step that is a number": ("malformed", lambda r: r["completions"].__setitem__(0, 3)),
}


@pytest.mark.parametrize("to", ["vlprm", "trl"])
@pytest.mark.parametrize("what", BROKEN_ROWS)
def test_a_row_of_ours_that_cannot_be_read_is_dropped_too(
    what: str, to: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = {"prompt": "What?", "completions": ["one", "two"], "labels": [True, False]}
    source = write_lines(tmp_path / "s.jsonl", [record])
    (good,) = read_rows(converted(source, "trl", "vlprm", tmp_path / "d.parquet"))
    bad = json.loads(json.dumps(good))
    cause, spoil = BROKEN_ROWS[what]
    spoil(bad)
    caplog.set_level(logging.INFO)
    converted(write_lines(tmp_path / "ours.jsonl", [good, bad]), "vlprm", to, tmp_path / "again.parquet")
    assert f"1 rows in {tmp_path / 'again.parquet'}; 1 rows dropped: {cause} 1 (first: line 2)" in caplog.text


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("trl", lambda r: r["completions"].__setitem__(1, "\ud800")),  # not UTF-8
        ("trl", lambda r: r["labels"].__setitem__(0, 10**400)),  # not a float
        ("visual_prm400k", lambda r: r["steps_with_score"][0].update(num_mc_correct=True)),  # not a count
    ],
)
def test_a_value_that_no_dataset_holds_costs_its_own_record_alone(
    name: str,
    spoil: Callable[[dict], Any],
    images: Path,
    tmp_path: Path,  # type: ignore[type-arg]
) -> None:
    good, bad = (json.loads(json.dumps(FIXTURES[name][0])) for _ in range(2))
    spoil(bad)
    source = write_lines(tmp_path / "s.jsonl", [bad, good])
    assert len(read_rows(converted(source, name, "vlprm", tmp_path / "d.parquet", images=images))) == 1


def test_a_gold_answer_that_is_a_number_becomes_text() -> None:
    step = {"completions": [{"text": "It is 29.", "rating": 1}], "human_completion": None, "chosen_completion": 0}
    record = {"question": {"problem": "What?", "ground_truth_answer": 29},
              "label": {"steps": [step], "finish_reason": "solution"}}  # fmt: skip
    row = READERS["prm800k"](record, ImageFolder(None))
    assert (row["answer"], row["leaves"]) == ("29", [{"node": 0, "answer": "29", "right": True}])


def test_a_damaged_table_is_read_up_to_the_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = [{"prompt": f"What is {n}?", "completions": [f"{n * 7919 % 10007}"], "labels": [0.5]} for n in range(500)]
    good = converted(write_lines(tmp_path / "s.jsonl", records), "trl", "vlprm", tmp_path / "d.parquet")
    data = bytearray(good.read_bytes())
    for place in range(len(data) // 3, len(data) // 3 + 400):
        data[place] ^= 0xFF
    (tmp_path / "damaged.parquet").write_bytes(data)
    caplog.set_level(logging.INFO)
    rows = read_rows(converted(tmp_path / "damaged.parquet", "vlprm", "vlprm", tmp_path / "again.parquet"))
    assert 0 < len(rows) < 500
    assert rows == read_rows(good)[: len(rows)]
    assert f"{500 - len(rows)} rows dropped: not_parquet {500 - len(rows)} (first: row {len(rows) + 1})" in caplog.text


@pytest.mark.parametrize("path", ["/etc/hostname", "link.png", "../images/../outside.png"])
def test_no_image_is_read_from_outside_of_the_folder(path: str, images: Path) -> None:
    with pytest.raises(RecordError) as caught:
        ImageFolder(images).load(path)
    assert caught.value.cause == "image_outside_folder"


def test_what_is_of_another_format_is_named(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "s.jsonl", [{"prompt": "What?", "completions": ["a"], "labels": [True]}])
    with pytest.raises(ValueError, match=r"could be read as prm800k .* its first record looks like trl"):
        converted(source, "prm800k", "vlprm", tmp_path / "d.parquet")
    assert not (tmp_path / "d.parquet").exists()
    bench = {**FIXTURES["visual_process_bench"][0], "image": ["elsewhere.png"]}
    source = write_lines(tmp_path / "bench.jsonl", [bench])
    with pytest.raises(ValueError, match=r"as trl .*; its first record looks like visual_process_bench$"):
        converted(source, "trl", "vlprm", tmp_path / "d.parquet")
    with pytest.raises(ValueError, match=r"no source .*none; give a file or a folder"):
        converted(tmp_path / "none", "trl", "vlprm", tmp_path / "d.parquet")
    with pytest.raises(ValueError, match=r"must end in \.parquet"):
        converted(source, "trl", "vlprm", tmp_path / "d.csv")
    (tmp_path / "there.parquet").touch()
    with pytest.raises(ValueError, match=r"there\.parquet already exists"):
        converted(source, "trl", "vlprm", tmp_path / "there.parquet")


def test_a_dataset_of_trees_is_not_read_as_one_chain_of_steps(own: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"could be read as trl .*a_tree 2.*; its first record looks like vlprm"):
        converted(own, "trl", "vlprm", tmp_path / "d.parquet")


def test_what_is_read_but_cannot_be_written_is_told_apart(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "s.jsonl", [{"prompt": "What?", "completions": ["a", "b"], "labels": [None, True]}])
    with pytest.raises(ValueError, match=r"no row of .* can be written as chat; choose another --to"):
        converted(source, "trl", "chat", tmp_path / "d.parquet")


def test_a_push_needs_a_token_and_sends_what_was_written(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "get_token", lambda: None)
    with pytest.raises(ValueError, match="no Hub token for push_to; log in with `hf auth login`"):
        converted(own, "vlprm", "trl", tmp_path / "t.parquet", push_to="me/steps")
    assert not (tmp_path / "t.parquet").exists()
    pushed: list[tuple[Any, ...]] = []
    monkeypatch.setattr(conversion, "get_token", lambda: "token")
    monkeypatch.setattr(Dataset, "push_to_hub", lambda self, name: pushed.append((name, self.column_names, len(self))))
    converted(own, "vlprm", "trl", tmp_path / "t.parquet", push_to="me/steps")
    paths = sum(len(row_paths(row)) for row in read_rows(own))
    assert pushed == [("me/steps", ["prompt", "completions", "images", "labels"], paths)]
