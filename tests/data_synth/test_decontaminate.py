"""Items of benchmarks are removed from a dataset, however their images are stored; images that only look alike stay."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf

from data_synth.decontaminate import main
from data_synth.decontamination.config import DecontaminateConfig
from data_synth.decontamination.embedding import Likeness, load_embedder
from data_synth.decontamination.matching import Items, likeness_to, normalised, read_benchmark
from tests.answer_accuracy import DATA
from vlprm.data.dataset import read_rows, write_dataset
from vlprm.data.importing import chain, label_without_counts, made_row
from vlprm.images import open_image, png
from vlprm.tasks import TASKS

LONG = "How many of the seven coloured cups on the table are half full?"
TEMPLATE = "What is the missing number of the part denoted with a question mark?"


def drawn(task: str, index: int) -> bytes:
    return TASKS[task].problem("train", index).images[0]


def row(question: str, *images: bytes) -> dict[str, Any]:
    return made_row("trl", question, images, "3", chain(["a step"], [label_without_counts("trl", 1.0)]))


def stored_again(data: bytes) -> bytes:
    """The image at half its size, in a lossy format."""
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


def config_of(
    folder: Path, benchmark: Path, embedding: str | None = None, cosine: float | None = None
) -> DecontaminateConfig:
    dataset, target = folder / "all.parquet", folder / "clean.parquet"
    return DecontaminateConfig(dataset, [benchmark], target, embedding=embedding, cosine=cosine)


def cleaned(
    tmp_path: Path, benchmark: Path, *rows: dict[str, Any], **fields: Any
) -> tuple[list[str], list[tuple[str, str]]]:
    """The prompts that are kept, and the item and reason of each removed row."""
    tmp_path.mkdir(exist_ok=True)
    config = config_of(tmp_path, benchmark, **fields)
    write_dataset(config.dataset, rows)
    main(config)
    report = json.loads((tmp_path / "clean.removed.json").read_text())
    assert report["kept"] + len(report["removed"]) == len(rows)
    return [kept["prompt"] for kept in read_rows(config.target)], [(m["item"], m["by"]) for m in report["removed"]]


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
    assert kept == ["Another question"]  # alike, but not the same
    assert removed == [("1", "question_and_image")]


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder as timm saves it, of a small model with random weights."""
    folder = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    save_for_hf(timm.create_model("test_resnet"), str(folder), safe_serialization=True)
    return str(folder)


def variant(data: bytes) -> bytes:
    """The image cut at one side and made smaller, which no hash recognises."""
    image = open_image(data)
    return png(image.crop((image.width // 16, 0, image.width, image.height)).resize((100, 100)))


def test_an_embedding_finds_what_a_hash_does_not(tmp_path: Path, benchmark: Path, embedding: str) -> None:
    """The embedding of a cut image is nearer to its item than other images of its kind are. With a threshold between
    the two, only the cut image is removed; identical images have a cosine of 1."""
    items = Items()
    read_benchmark(benchmark, items)
    likeness = likeness_to(items, config_of(tmp_path, benchmark, embedding, 0.5))
    assert likeness is not None
    own = [drawn("chart", n) for n in range(4)]
    cut, others = list(map(variant, own)), [drawn(name, 40) for name in TASKS if name != "chart"]
    of_own, of_cut, of_others = (likeness.nearest([[one] for one in images]) for images in (own, cut, others))
    assert of_own == [(pytest.approx(1, abs=1e-5), n) for n in range(4)]
    assert [item for _, item in of_cut] == list(range(4))  # type: ignore[misc]
    lowest, highest = min(c for c, _ in of_cut), max(c for c, _ in of_others)  # type: ignore[misc]
    assert lowest > highest
    rows = [row(f"cut {n}", one) for n, one in enumerate(cut)] + [row(f"other {n}", o) for n, o in enumerate(others)]
    rows.append(row("no image"))
    assert len(cleaned(tmp_path / "hash", benchmark, *rows)[0]) == len(rows)
    _, removed = cleaned(tmp_path / "both", benchmark, *rows, embedding=embedding, cosine=(lowest + highest) / 2)
    assert removed == [(str(n), "embedding") for n in range(4)]
    report = json.loads((tmp_path / "both/clean.removed.json").read_text())
    assert report["by"] == {"embedding": 4}
    assert [one["cosine"] for one in report["likest_kept"]] == sorted((c for c, _ in of_others), reverse=True)  # type: ignore[misc]


def test_each_image_is_embedded_once_in_batches(tmp_path: Path, benchmark: Path, embedding: str) -> None:
    embedder, sizes = load_embedder(embedding), []
    model = embedder.model
    embedder = dataclasses.replace(embedder, model=lambda pixels: (sizes.append(len(pixels)), model(pixels))[1])
    vectors = embedder([drawn("chart", n) for n in range(70)])
    assert (sizes, len(vectors)) == ([64, 6], 70)
    likeness = Likeness(embedder, vectors, range(70))
    likeness.nearest([[drawn("chart", 1), drawn("chart", 2)], [drawn("chart", 1)], []])
    likeness.nearest([[drawn("chart", 2)]])
    assert sizes[2:] == [2]


def test_an_embedding_that_cannot_be_had_says_so(
    tmp_path: Path, benchmark: Path, embedding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_such_model", "timm/no_such", "resnet18", str(benchmark)):
        with pytest.raises(ValueError, match=rf"embedding '{name}' cannot be loaded .*; give a folder saved by timm"):
            load_embedder(name)
    write_dataset(tmp_path / "all.parquet", [row("x", drawn("chart", 0))])
    for fields in ((embedding, None), (None, 0.9)):
        with pytest.raises(ValueError, match="only one of embedding and cosine is set; set both"):
            main(config_of(tmp_path, benchmark, *fields))
    (benchmark / "items.jsonl").write_text(json.dumps({"question": LONG}))
    with pytest.raises(ValueError, match="the benchmarks have no images to embed; leave out embedding"):
        main(config_of(tmp_path, benchmark, embedding, 0.9))


def test_what_cannot_be_compared_says_so(tmp_path: Path, benchmark: Path) -> None:
    target = tmp_path / "clean.parquet"
    write_dataset(tmp_path / "all.parquet", [row("x", drawn("chart", 0))])

    def refused(message: str, folders: list[Path]) -> None:
        with pytest.raises(ValueError, match=message):
            main(DecontaminateConfig(tmp_path / "all.parquet", folders, target))
        assert not target.exists()

    refused("no benchmark to compare with; give folders", [])
    refused("has no items.jsonl or problems.jsonl", [tmp_path])
    refused("every row of .* matches a benchmark item", [benchmark])
    (benchmark / "0.png").write_bytes(b"no image")
    refused("bench: 0.png cannot be read", [benchmark])
    (benchmark / "0.png").unlink()
    refused("image '0.png' of item 0 is missing", [benchmark])
    (benchmark / "items.jsonl").write_text('{"id": "1"}\n')
    refused("line 1 is not an object with a question", [benchmark])
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
