"""What is a benchmark's is left out of a dataset, however its image is stored; and what only looks alike stays."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from data_synth.decontaminate import DecontaminateConfig, Items, main, normalised, read_benchmark
from tests.answer_accuracy import DATA
from vlprm.dataset import read_rows, write_dataset
from vlprm.foreign import chain, made_row, told
from vlprm.images import open_image, png
from vlprm.tasks import TASKS

LONG = "How many of the seven coloured cups on the table are half full?"
TEMPLATE = "What is the missing number of the part denoted with a question mark?"


def drawn(task: str, index: int) -> bytes:
    return TASKS[task].problem("train", index).images[0]


def row(question: str, *images: bytes) -> dict[str, Any]:
    return made_row("trl", question, images, "3", chain(["a step"], [told("trl", 1.0)]))


def stored_again(data: bytes) -> bytes:
    """Half as large, and in a lossy format."""
    image, file = open_image(data), io.BytesIO()
    image.resize((image.width // 2, image.height // 2)).save(file, "JPEG", quality=60)
    return file.getvalue()


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    folder = tmp_path / "bench"
    folder.mkdir()
    asked = [LONG, TEMPLATE, TEMPLATE, "How many?"]
    lines = []
    for n, question in enumerate(asked):
        (folder / f"{n}.png").write_bytes(drawn("chart", n))
        lines.append(json.dumps({"id": str(n), "question": f"<image1> {question}", "image": f"{n}.png"}))
    (folder / "items.jsonl").write_text("\n".join(lines))  # the last line may lack its end
    return folder


def cleaned(tmp_path: Path, benchmark: Path, *rows: dict[str, Any]) -> tuple[list[str], list[tuple[str, str]]]:
    """The prompts that are kept, and the item and reason of each row that is not."""
    dataset, target = tmp_path / "all.parquet", tmp_path / "clean.parquet"
    write_dataset(dataset, rows)
    main(DecontaminateConfig(dataset, [benchmark], target))
    report = json.loads((tmp_path / "clean.removed.json").read_text())
    assert report["kept"] + len(report["removed"]) == len(rows)
    return [kept["prompt"] for kept in read_rows(target)], [(m["item"], m["by"]) for m in report["removed"]]


def test_an_image_is_found_however_it_is_stored(tmp_path: Path, benchmark: Path) -> None:
    rows = [row("Another question", stored_again(drawn("chart", n))) for n in range(4)]
    kept, removed = cleaned(tmp_path, benchmark, *rows, row("Kept", drawn("chart", 9)), row("Text alone"))
    assert kept == ["Kept", "Text alone"]
    assert removed == [(str(n), "image") for n in range(4)]


def test_a_question_of_an_items_own_is_found_and_a_template_is_not(tmp_path: Path, benchmark: Path) -> None:
    other = drawn("figure", 5)
    hinted = f"Hint: answer with a number.\nQuestion: {LONG.upper()}\nChoices:\n(A) 1\n(B) 3"
    rows = [row(hinted), row(TEMPLATE, other), row("How many?", other)]
    kept, removed = cleaned(tmp_path, benchmark, *rows)
    assert kept == [TEMPLATE, "How many?"]
    assert removed == [("0", "question")]


def test_a_question_that_the_dataset_asks_of_many_images_is_a_template(tmp_path: Path, benchmark: Path) -> None:
    rows = [row(LONG, drawn("figure", n)) for n in range(2)]
    kept, removed = cleaned(tmp_path, benchmark, *rows)
    assert (len(kept), removed) == (2, [])


def test_a_template_counts_where_the_images_are_alike(tmp_path: Path, benchmark: Path) -> None:
    image = open_image(drawn("chart", 1))
    cut = png(image.crop((2, 2, image.width - 1, image.height)))
    kept, removed = cleaned(tmp_path, benchmark, row(TEMPLATE, cut), row("Another question", cut))
    assert kept == ["Another question"]  # so much alike is not the same
    assert removed == [("1", "question_and_image")]


def test_what_cannot_be_compared_says_so(tmp_path: Path, benchmark: Path) -> None:
    target = tmp_path / "clean.parquet"
    write_dataset(tmp_path / "all.parquet", [row("x", drawn("chart", 0))])

    def refused(message: str, folders: list[Path]) -> None:
        with pytest.raises(ValueError, match=message):
            main(DecontaminateConfig(tmp_path / "all.parquet", folders, target))
        assert not target.exists()

    refused("there is no benchmark to compare with", [])
    refused("has no items.jsonl or problems.jsonl", [tmp_path])
    refused("every row of .* is an item of a benchmark", [benchmark])
    (benchmark / "0.png").write_bytes(b"no image")
    refused("bench: 0.png cannot be read", [benchmark])
    (benchmark / "0.png").unlink()
    refused("there is no image '0.png' of the item 0", [benchmark])
    (benchmark / "items.jsonl").write_text('{"id": "1"}\n')
    refused("line 1 is no item with a question", [benchmark])
    (tmp_path / "all.parquet").unlink()
    refused("no dataset .*all.parquet", [benchmark])


@pytest.mark.skipif(not DATA.is_dir() and not os.environ.get("CI"), reason=f"{DATA} is not there; set VLPRM_DATA")
@pytest.mark.parametrize("name", ["mathvista", "mmmu"])
def test_packaged_benchmarks_are_read(name: str) -> None:
    items = Items()
    read_benchmark(DATA / name, items)
    assert len(items.names) == len((DATA / name / "items.jsonl").read_text().split("\n")) - 1
    assert set(items.owners) == set(range(len(items.names)))  # each has its image
    assert normalised("<image 1> What's 7?") == normalised("what s\n7")
