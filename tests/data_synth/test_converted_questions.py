"""Where a record's question ends, how many images it marks, and what of both goes out again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_synth.formats.conversion import READERS
from data_synth.formats.writers import WRITERS, Target
from tests.data_synth.test_convert import FIXTURES, png_bytes
from tests.data_synth.test_verifier_formats import ROWS
from vlprm.data.importing import ImageFolder, chain, label_without_counts, made_row
from vlprm.errors import RecordError
from vlprm.step_benchmarks import visual_process_bench


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(png_bytes())
    return tmp_path


def mm_prm_row(text: Any, values: Any) -> dict[str, Any]:
    """A row as MM-PRM's prm_data_format.py writes it."""
    turns = [{"from": "human", "value": text}, {"from": "gpt", "value": values}]
    return {"id": 0, "image": "a.png", "conversations": turns}


MM_PRM_TEXTS = [
    ("Question: How many?\nProcess: Step 1: two<prm>Step 2: so 2<prm>", "How many?", ["Step 1: two", "Step 2: so 2"]),
    ("Question: <image>\nHow many?\nProcess: two<prm>so 2<prm>\n", "How many?", ["two", "so 2"]),
    ("Question: a\n\nb?\nProcess: one,\n\nstill one<prm> two<prm>", "a\n\nb?", ["one,\n\nstill one", " two"]),
    (
        "Question: Read.\nProcess: boil. What?\nProcess: Step 1: x<prm>y<prm>",
        "Read.\nProcess: boil. What?",
        ["Step 1: x", "y"],
    ),
    ("Question: What?\nProcess: Step 1: the\nProcess: is x<prm>y<prm>", "What?", ["Step 1: the\nProcess: is x", "y"]),
]


@pytest.mark.parametrize(("text", "question", "steps"), MM_PRM_TEXTS)
def test_mm_prms_rows_are_read_as_it_writes_them(text: str, question: str, steps: list[str], images: Path) -> None:
    row = READERS["mm_prm"](mm_prm_row(text, [0.5, 0.0]), ImageFolder(images))
    assert (row["prompt"], row["completions"], row["labels"]) == (question, steps, [0.5, 0.0])


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("How many?\n\ntwo<prm>so 2<prm>", "no_question"),
        ("Question: How many? two<prm>so 2<prm>", "no_question"),
        ("Question: \nProcess: two<prm>so 2<prm>", "no_question"),
        ("Question: How many?\nProcess: two<prm>so 2", "label_count"),
        ("Question: How many?\nProcess: two<prm>so<prm>2<prm>", "label_count"),
        ("Question: How many?\nProcess: two so 2", "no_steps"),
        ("Question: How many?\nProcess: <prm>so 2<prm>", "empty_step"),
        (None, "value_type"),
    ],
)
def test_mm_prms_rows_of_another_layout_are_dropped(text: Any, cause: str, images: Path) -> None:
    with pytest.raises(RecordError) as caught:
        READERS["mm_prm"](mm_prm_row(text, [0.5, 0.0]), ImageFolder(images))
    assert caught.value.cause == cause


def shown_with(name: str, question: str, image: Any) -> dict[str, Any]:
    """A record of the format, with this question and image field."""
    field = "image_path" if name == "mm_prm" else "image"
    return {**asked(name, question), "image": image, field: image}


MARKED: list[tuple[str, Any, str]] = [
    ("How many?", None, "How many? 0"),
    ("How many?", "a.png", "How many? 1"),
    ("How many?", ["a.png", "a.png"], "How many? 2"),
    ("<image>\nHow many?", "a.png", "How many? 1"),
    ("<image>\n<image>\nHow many?", ["a.png", "a.png"], "How many? 2"),
    ("<image 1>\nHow many?", ["a.png", "a.png"], "How many? 2"),
    ("<image1><image2> How many?", ["a.png", "a.png"], "How many? 2"),
    ("<image>\nHow many?", None, "image_missing"),
    ("<image> or <image>?", "a.png", "image_count"),
    ("<image>\nHow many?", ["a.png", "a.png"], "image_count"),
    ("<image 2>\nHow many?", "a.png", "image_count"),
    ("<image 1>\nHow many?", [], "image_missing"),
]
WITH_IMAGES = ["vl_prm300k", "visual_prm400k", "visual_prm400k turns", "mm_prm", "mm_prm turns", "visual_process_bench"]


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_marks_are_counted_and_taken_off(name: str, images: Path) -> None:
    for question, image, expected in MARKED:
        try:
            row = READERS[name.split()[0]](shown_with(name, question, image), ImageFolder(images))  # type: ignore[index]
            found = f"{row['prompt']} {len(row['images'])}"
        except RecordError as error:
            found = error.cause
        assert found == expected, (question, image)


def test_a_benchmark_is_converted_with_the_question_that_is_measured(images: Path) -> None:
    for question in ("<image>\nHow many?", "<image 1> How many?", "How many?"):
        record = shown_with("visual_process_bench", question, ["a.png"])
        row = READERS["visual_process_bench"](record, ImageFolder(images))
        assert row["prompt"] == visual_process_bench._labelled(record, "x/1").question == "How many?"


@pytest.mark.parametrize(
    ("question", "first"),
    [
        ("A recipe: Step 1: mix. Step 2: bake. How many steps? ", "Step 1: I count 2. "),
        ("What is 1 + 1? ", "Step 1: As in Step 1: I count 2. "),
        ("Do Step 1: then stop ", "Step 1: I count 2. "),
        ("Compute $1 + 1$ ", "Step 1: I count 2. "),
    ],
)
def test_math_shepherds_question_ends_where_the_solution_begins(question: str, first: str) -> None:
    record = {"input": f"{question}{first}ки\nStep 2: The answer is: 2 ки", "task": "GSM8K",
              "label": f"{question}{first}+\nStep 2: The answer is: 2 +"}  # fmt: skip
    row = READERS["math_shepherd"](record, ImageFolder(None))
    assert (row["prompt"], row["completions"][0]) == (question, first)


def asked(name: str, question: str) -> dict[str, Any]:
    """A record of the format with this question and nothing else wrong."""
    if name == "math_shepherd":
        return {"input": f"{question}Step 1: one ки", "label": f"{question}Step 1: one +"}
    if name == "prm800k":
        step = {"completions": [{"text": "one", "rating": 1}], "chosen_completion": 0}
        return {"question": {"problem": question}, "label": {"steps": [step]}}
    if name == "omega_prm":
        return {"question": question, "reasoning_steps": {"children": [{"text": "one", "mc_value": 1.0}]}}
    if name == "mm_prm turns":
        return mm_prm_row(f"Question: {question}\nProcess: one<prm>", [1.0])
    if name == "visual_prm400k turns":
        opening = f"### Question:\n{question}\n\n### Solution Process:\none"
        return {"conversations": [{"from": "human", "value": opening}, {"from": "gpt", "value": "+"}]}
    if name == "trl messages":
        return {**FIXTURES["trl"][0], "prompt": [{"role": "user", "content": question}]}
    if name == "vlprm":
        rows = {"prompt": "What?", "completions": ["one"], "labels": [True]}
        return {**READERS["trl"](rows, ImageFolder(None)), "prompt": question}
    if name in ROWS:
        return dict(json.loads(json.dumps(ROWS[name]).replace("How many?", json.dumps(question)[1:-1])))
    return {**FIXTURES[name][0], "prompt" if name == "trl" else "question": question}


@pytest.mark.parametrize("question", ["", " \n"])
@pytest.mark.parametrize("name", [*READERS, "mm_prm turns", "visual_prm400k turns", "trl messages"])
def test_a_record_that_asks_nothing_is_dropped(name: str, question: str, images: Path) -> None:
    read = READERS[name.split()[0]]  # type: ignore[index]
    assert read(asked(name, "What?"), ImageFolder(images))["prompt"].strip() == "What?"
    with pytest.raises(RecordError) as caught:
        read(asked(name, question), ImageFolder(images))
    assert caught.value.cause == "no_question"


def rows_with(question: str, shown: int, steps: Sequence[str] = ("one", "two")) -> dict[str, Any]:
    """A row of ours with this question and number of images."""
    nodes = chain(steps, [label_without_counts("x", 1.0)] * len(steps))
    return made_row("t", question, (png_bytes(),) * shown, "3", nodes)


@pytest.mark.parametrize("shown", [0, 1, 2])
def test_a_chat_has_one_mark_per_image_before_its_question(shown: int, images: Path) -> None:
    (made,) = WRITERS["chat"](rows_with("How many?", shown), Target(0.0))
    said = [turn["content"] for turn in made["conversations"]]
    assert said[1].startswith("### Question:\n" + "<image>\n" * shown + "How many?\n\n")
    assert sum(text.count("<image>") for text in said) == len(made["images"]) == shown
    turns = [{"from": t["role"], "value": t["content"]} for t in made["conversations"]]
    back = READERS["visual_prm400k"]({**made, "conversations": turns}, ImageFolder(None))
    assert (back["prompt"], len(back["images"])) == ("How many?", shown)


def test_a_solution_that_spells_a_mark_is_counted_and_not_written() -> None:
    """A reader would take it for an image."""
    for to, row in (
        ("trl", rows_with("What does <image> do?", 1)),
        ("chat", rows_with("What does <image> do?", 0)),
        ("chat", rows_with("What?", 1, ("The tag <image>.",))),
    ):
        target = Target(0.0)
        assert list(WRITERS[to](row, target)) == []
        assert target.lost["solutions that spell <image>"] == 1
    (written,) = WRITERS["trl"](rows_with("What?", 1, ("The tag <image>.",)), Target(0.0))
    assert written["completions"] == ["The tag <image>."]
