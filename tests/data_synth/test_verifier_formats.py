"""Rows of other groups' verifiers, in; rows for other trainers, out. The rows are written as the public scripts do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from data_synth import convert
from data_synth.formats.config import ConvertConfig
from data_synth.formats.conversion import READERS
from vlprm.data.dataset import read_rows, row_paths, tree_row, write_dataset
from vlprm.data.importing import ImageFolder
from vlprm.errors import RecordError
from vlprm.schema import StepLabel, StepTree, TreeNode
from vlprm.steps import parse_step
from vlprm.tasks import TASKS

STEPS = ["Step 1: 3 are red.", "Step 2: 3 + 1 = 5."]
LINES = "\n".join(STEPS)
ASKED = "Is the current step correct in context? Output only one token: 1 or 0."
URSA = "You are given a problem. You need to check the correctness of each step.\nQuestion:How many?\n"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def turn(before: str, step: str) -> dict[str, str]:
    return user(f"[Previous Step Judgments]\n{before}\n[Current Step]\n{step}\n{ASKED}")


EVPV = [
    {"step": STEPS[0], "score": 1, "category": ""},
    {"step": STEPS[1], "score": -1, "category": "Calculation Error"},
]
ROWS: dict[str, dict[str, Any]] = {
    "dual_math": {
        "image_url": "a.png",
        "instruction": f"{URSA}{STEPS[0]} и\n{STEPS[1]} и\n†Answer: 5",
        "output": f"{URSA}{STEPS[0]} +\n{STEPS[1]} -\n†Answer: 5",
    },
    "vil_reward": {"image": "a.png", "question": "How many?", "process": "\n\n".join(STEPS), "value": 0.25},
    "pro_judge": {
        "question": "<image>\nHow many?",
        "subject": "Math",
        "image_paths": {"image_1": "a.png", "image_2": None},
        "process_evaluation": [[STEPS[0], "1", "", ""], [STEPS[1], "0", "Visual Interpretation Error", "4 are red"]],
    },
    "dream_prm": {
        "id": 1128,
        "sid": 2,
        "input": "How many?",
        "add": LINES,
        "ground_truth": "4",
        "image_path": "a.png",
        "dataset": "chartqa",
        "score": 7,
        "times": 11,
        "accuracy": 0.6363,
    },
    "vrprm": {
        "images": ["a.png"],
        "messages": [
            {"role": "system", "content": "You are a visual process reward model."},
            user(f"[Question]\nHow many?\n[Reference Answer]\n4\n[Candidate Solution]\n{LINES}"),
            {"role": "assistant", "content": "<think>look</think>", "loss_scale": 0.5},
            turn("None", STEPS[0]),
            {"role": "assistant", "content": "1", "loss": False},
            turn("Step 0: \\boxed{1}", STEPS[1]),
            {"role": "assistant", "content": "0", "loss_scale": 2.0},
        ],
    },
    "evpv": {
        "images": ["a.png"],
        "messages": [
            user(
                "Question: How many?\n\nImage Describe: dots\n\nSolution Steps:\n"
                + "\n".join(f"{n}. {step}" for n, step in enumerate(STEPS, 1))
            ),
            {"role": "assistant", "content": json.dumps(EVPV)},
        ],
    },
    "mm_prm": {
        "image": "a.png",
        "prm_counts": {"k": [16, 4], "n": [16, 16]},
        "conversations": [
            {"from": "human", "value": f"Question: How many?\nProcess: {STEPS[0]}<prm>{STEPS[1]}<prm>"},
            {"from": "gpt", "value": [1.0, 0.25]},
        ],
    },
}
LABELS: dict[str, list[float | None]] = {
    "dual_math": [1.0, 0.0],
    "vil_reward": [None, 0.25],
    "pro_judge": [1.0, 0.0],
    "dream_prm": [None, 7 / 11],
    "vrprm": [None, 0.0],
    "evpv": [1.0, 0.0],
    "mm_prm": [1.0, 0.25],
}
SPOILT = {  # a text in the row, and what makes the label none
    "dual_math": (" -\\n", " ?\\n"),
    "vil_reward": ("0.25", "2"),
    "pro_judge": ('"1", "", ""', '"right", "", ""'),
    "dream_prm": ('"score": 7', '"score": 12'),
    "vrprm": ('"content": "1"', '"content": "yes"'),
    "evpv": ('\\"score\\": -1', '\\"score\\": 0'),
    "mm_prm": ("[16, 4]", "[17, 4]"),
}


@pytest.fixture
def images(tmp_path: Path) -> ImageFolder:
    (tmp_path / "a.png").write_bytes(TASKS["count_grid"].problem("test", 0).images[0])
    return ImageFolder(tmp_path)


def read(name: str, images: ImageFolder, row: dict[str, Any] | None = None) -> dict[str, Any]:
    return READERS[name](ROWS[name] if row is None else row, images)  # type: ignore[index]


@pytest.mark.parametrize("name", ROWS)
def test_each_label_of_a_row_is_kept_and_a_wrong_one_drops_the_row(name: str, images: ImageFolder) -> None:
    row = read(name, images)
    assert row["prompt"] == "How many?"
    assert row["completions"] == STEPS
    assert row["labels"] == LABELS[name]
    assert len(row["images"]) == 1
    written = json.dumps(ROWS[name], ensure_ascii=False)
    assert SPOILT[name][0] in written
    with pytest.raises(RecordError):
        read(name, images, json.loads(written.replace(*SPOILT[name])))


def test_counts_and_kinds_of_errors_are_kept(images: ImageFolder) -> None:
    for name, counts in (("mm_prm", (4, 16, 16)), ("dream_prm", (7, 11, 11))):
        (path,) = row_paths(read(name, images))
        last = path.labels[-1]
        assert (last.mc_correct, last.mc_valid, last.mc_total) == counts
    assert read("pro_judge", images)["error_kinds"] == [None, "perception"]
    assert read("evpv", images)["error_kinds"] == [None, "reasoning"]


# --- out


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree whose first step is followed by a right and a wrong one, the wrong one by one without a label."""
    problem = TASKS["count_grid"].problem("train", 0)
    parts = zip(("3 red", "3 + 1 = 4", "3 + 1 = 5", "so 5"), (-1, 0, 0, 2), (1.0, 0.75, 0.0, None), strict=True)
    nodes = [TreeNode(parse_step(text), parent, StepLabel(target=target, rule="mc")) for text, parent, target in parts]
    made = StepTree(problem.id, tuple(nodes), ((1, "4"), (3, "5")))
    write_dataset(tmp_path / "tree.parquet", [tree_row(problem, made, [True, False], {"rule": "mc"})])
    return tmp_path / "tree.parquet"


def written(source: Path, to: str, **changes: Any) -> list[dict[str, Any]]:
    target = source.with_name(f"{to}.parquet")
    convert.main(ConvertConfig(source, "vlprm", to, target, **changes))  # type: ignore[arg-type]
    return list(load_dataset("parquet", data_files=str(target), split="train"))


def test_pairs_share_all_steps_but_the_last(tree: Path) -> None:
    (pair,) = written(tree, "dpo")
    prompt = read_rows(tree)[0]["prompt"]
    parts = {
        name: [(turn["role"], turn["content"]) for turn in pair[name]] for name in ("prompt", "chosen", "rejected")
    }
    image = {"type": "image", "text": None}
    assert parts == {
        "prompt": [("user", [image, {"type": "text", "text": prompt}])],
        "chosen": [("assistant", [{"type": "text", "text": "3 red\n\n3 + 1 = 4"}])],
        "rejected": [("assistant", [{"type": "text", "text": "3 red\n\n3 + 1 = 5"}])],
    }
    assert len(pair["images"]) == 1
    (tree.parent / "dpo.parquet").unlink()
    with pytest.raises(ValueError, match=r"no row .* can be written as dpo"):
        written(tree, "dpo", threshold=0.8)


def test_messages_hold_a_turn_per_labelled_step(tree: Path) -> None:
    rows = written(tree, "messages")
    signs = [[turn["content"] for turn in row["messages"] if turn["role"] == "assistant"] for row in rows]
    assert signs == [["+", "+"], ["+", "-"]]
    text = "".join(turn["content"] for turn in rows[0]["messages"])
    assert text.count("<image>") == len(rows[0]["images"]) == 1
    page = Path("docs/datasets.md").read_text()
    described = json.loads(page.partition("```json\n")[2].partition("```")[0])["steps"]
    assert set(rows[0]) == set(described["columns"].values())
    tags = described["tags"]
    fields = {tags.pop("role_tag"), tags.pop("content_tag")}
    assert all(set(turn) == fields for turn in rows[0]["messages"])
    assert {turn["role"] for turn in rows[0]["messages"]} == set(tags.values())
