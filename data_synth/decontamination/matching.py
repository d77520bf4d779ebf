"""Find dataset rows that are benchmark items, by image hash, question or image embedding."""

from __future__ import annotations

import heapq
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from datasets import Features

from data_synth.decontamination.config import DecontaminateConfig
from data_synth.decontamination.embedding import BATCH, Likeness, load_embedder
from vlprm.data.dataset import FEATURES, batches, check_columns, iterate_rows, open_parquet, row_count, write_parquet
from vlprm.errors import UserError
from vlprm.images import keep_decoded, open_image, read_inside
from vlprm.runs.folder import write_atomically
from vlprm.runs.journal import placed_lines
from vlprm.runs.progress import tracked

log = logging.getLogger(__name__)

HASH_SIZE = 16  # 256 bits: with 64, drawn figures of one family on a white background collide too often
DECODED = 1 << 26  # bytes of decoded images in memory
LIKEST = 20  # the report lists this many kept rows with the highest cosine, to help choose a threshold
WORDS = 8  # a question of at least this many words identifies its item
# What evaluations put around a question: image marks, a hint, a heading, and the options.
_AROUND = re.compile(
    r"<image\s*\d*>|^hint:[^\n]*\n|^question:|^(?:choices|options):.*", re.IGNORECASE | re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Match:
    """A row and the benchmark item that it matches. `by` says what matched: `image`, `question`, `question_and_image`
    or `embedding`."""

    row: str
    benchmark: str
    item: str
    by: str
    bits: int | None  # Hamming distance of their nearest image hashes
    cosine: float | None = None  # similarity of their nearest image embeddings


@dataclass
class Items:
    """Items of all benchmarks. `asked` maps a normalised question to item indices; `owners` has the item index of each
    image hash."""

    names: list[tuple[str, str]] = field(default_factory=list)
    asked: dict[str, list[int]] = field(default_factory=dict)
    owners: list[int] = field(default_factory=list)  # in ascending order
    hashes: list[np.ndarray] = field(default_factory=list)

    def add(self, benchmark: str, item: str, question: str, images: Iterable[np.ndarray]) -> None:
        """Add an item with the hashes of its images."""
        index = len(self.names)
        self.names.append((benchmark, item))
        self.asked.setdefault(normalised(question), []).append(index)
        for image in images:
            self.owners.append(index)
            self.hashes.append(image)

    @cached_property
    def _signs(self) -> np.ndarray:
        """(hashes, 256) bits of the hashes as -1 and 1, once all items are added."""
        return _signs(self.hashes)

    def bits(self, rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        """(rows, items) smallest Hamming distance between the hashes of a row and of an item; above 256 if either has
        no image. Distances of all pairs come from one matrix product: of 256 signs, as many differ as the product is
        below 256, halved."""
        nearest = np.full((len(rows), len(self.names)), float(8 * HASH_SIZE**2))
        shown = [image for images in rows for image in images]
        if not shown or not self.hashes:
            return nearest
        apart = (HASH_SIZE**2 - _signs(shown) @ self._signs.T) / 2
        items, starts = np.unique(self.owners, return_index=True)
        of_items = np.minimum.reduceat(apart, starts, axis=1)
        ends = np.cumsum([len(images) for images in rows])
        for row, (images, end) in enumerate(zip(rows, ends, strict=True)):
            if images:
                nearest[row, items] = of_items[end - len(images) : end].min(0)
        return nearest


def _signs(hashes: Sequence[np.ndarray]) -> np.ndarray:
    signs: np.ndarray = np.unpackbits(np.stack(hashes), axis=-1).astype(np.float32) * 2 - 1
    return signs


def normalised(question: str) -> str:
    """The words and numbers of a question in lower case, without prompt text around it."""
    return " ".join(re.findall(r"\w+", _AROUND.sub(" ", question).casefold()))


def image_hash(data: bytes, name: str) -> np.ndarray:
    """Perceptual hash (DCT of the grey image, `imagehash`) as bytes. UserError names an unreadable image."""
    return np.packbits(imagehash.phash(open_image(data, name), hash_size=HASH_SIZE).hash)


def read_benchmark(folder: Path, items: Items) -> None:
    """Add the items of a benchmark folder."""
    for item, question, images in benchmark_items(folder):
        items.add(folder.name, item, question, (image_hash(data, f"{folder.name}: {name}") for name, data in images))


def benchmark_items(folder: Path) -> Iterator[tuple[str, str, list[tuple[str, bytes]]]]:
    """Yield the id, question and images (name, bytes) of each item. UserError if the folder has no items file, or if a
    line or an image cannot be read."""
    path = next((folder / name for name in ("items.jsonl", "problems.jsonl") if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder} has no items.jsonl or problems.jsonl; give a benchmark folder")
    for number, (_, line) in enumerate(placed_lines(path), 1):
        try:
            record = json.loads(line)
            question = str(record["question"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number} is not an object with a question; correct it") from error
        item = str(record.get("id", record.get("pid", record.get("image", number))))
        yield item, question, list(_item_images(folder, item, record))


def _item_images(folder: Path, item: str, record: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    listed = record.get("images") or [value for key, value in record.items() if re.fullmatch(r"image(_\d+)?", key)]
    for name in listed:
        try:
            data = read_inside(folder.resolve(), name)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: image {name!r} of item {item} is missing; copy it there") from error
        yield name, data


def templates(dataset: Path) -> set[str]:
    """Normalised questions that two or more problems of the dataset share."""
    first: dict[str, str] = {}
    repeated = set()
    with open_parquet(dataset) as file:
        for batch in file.iter_batches(columns=["prompt", "id"]):
            for row in batch.to_pylist():
                question = normalised(row["prompt"])
                if first.setdefault(question, row["id"]) != row["id"]:
                    repeated.add(question)
    return repeated


def match(
    row: dict[str, Any], bits: np.ndarray, items: Items, repeated: set[str], config: DecontaminateConfig
) -> Match | None:
    """The benchmark item that a row matches by image hash (`Items.bits` of the row) or question; None if it matches
    none."""
    nearest = int(bits.argmin())
    if bits[nearest] <= config.distance:
        return Match(row["id"], *items.names[nearest], "image", int(bits[nearest]))
    question = normalised(row["prompt"])
    if not (same := items.asked.get(question, [])):
        return None
    nearest = min(same, key=lambda index: int(bits[index]))
    apart = int(bits[nearest]) if bits[nearest] <= HASH_SIZE**2 else None
    if len(same) == 1 and question not in repeated and len(question.split()) >= WORDS:
        return Match(row["id"], *items.names[nearest], "question", apart)
    if apart is not None and apart <= config.near:
        return Match(row["id"], *items.names[nearest], "question_and_image", apart)
    return None


def decontaminate(config: DecontaminateConfig) -> None:
    """Write the dataset without rows that match benchmark items, and a report of the removed rows. UserError if the
    target exists, the config is incomplete, or every row matches."""
    report = config.target.with_suffix(".removed.json")
    if config.target.exists():
        raise UserError(f"{config.target} already exists; choose another target, or remove it")
    if not config.benchmark_dir:
        raise UserError("no benchmark to compare with; give folders with --benchmark_dir")
    if (config.embedding is None) != (config.cosine is None):
        raise UserError("only one of embedding and cosine is set; set both, or neither")
    with open_parquet(config.dataset) as file:  # fail early, before the benchmarks are read
        check_columns(config.dataset, file.schema_arrow.names)
    keep_decoded(DECODED)
    items = Items()
    for folder in config.benchmark_dir:
        read_benchmark(folder, items)
    if not items.names:
        raise UserError("the benchmarks have no items; see the fields of items.jsonl in docs/datasets.md")
    likeness = likeness_to(items, config)
    removed: list[Match] = []
    likest: list[Match] = []
    kept = write_parquet(config.target, _kept(config, items, likeness, removed, likest), Features(FEATURES))
    counts = dict(Counter(found.by for found in removed))
    said = {"dataset": str(config.dataset), "items": len(items.names), "kept": kept, "by": counts}
    lists = {"removed": removed, **({"likest_kept": likest} if likeness else {})}
    said |= {name: [asdict(found) for found in listed] for name, listed in lists.items()}
    write_atomically(report, json.dumps(said, indent=1) + "\n")
    log.info("%d rows kept, %d removed %s; see %s", kept, len(removed), counts or "", report)
    if not kept:
        config.target.unlink()
        raise UserError(f"every row of {config.dataset} matches a benchmark item; see {report}")


def likeness_to(items: Items, config: DecontaminateConfig) -> Likeness | None:
    """Embed the items' images, in the order of their hashes; None without `config.embedding`."""
    if config.embedding is None:
        return None
    if not items.owners:
        raise UserError("the benchmarks have no images to embed; leave out embedding and cosine")
    embedder = load_embedder(config.embedding)
    found = (data for folder in config.benchmark_dir for _, _, images in benchmark_items(folder) for _, data in images)
    return Likeness(embedder, embedder(found), items.owners)


def _kept(
    config: DecontaminateConfig, items: Items, likeness: Likeness | None, removed: list[Match], likest: list[Match]
) -> Iterator[dict[str, Any]]:
    """Yield the rows to keep. Append matches to `removed`, and collect the highest cosines of kept rows in `likest`."""
    repeated = templates(config.dataset)
    for rows in batches(tracked(iterate_rows(config.dataset), "rows", row_count(config.dataset)), BATCH):
        hashes = [[image_hash(i["bytes"], f"row {row['id']}") for i in row["images"]] for row in rows]
        for row, bits, alike in zip(rows, items.bits(hashes), _alike(rows, items, likeness), strict=True):
            is_same = alike is not None and alike.cosine >= config.cosine  # type: ignore[operator]
            if found := match(row, bits, items, repeated, config) or (alike if is_same else None):
                removed.append(found)
                continue
            if alike:
                likest[:] = heapq.nlargest(LIKEST, [*likest, alike], key=lambda one: one.cosine or 0.0)
            yield row


def _alike(rows: Sequence[dict[str, Any]], items: Items, likeness: Likeness | None) -> list[Match | None]:
    """The nearest item of each row by embedding; None without an embedding or an image."""
    if likeness is None:
        return [None] * len(rows)
    nearest = likeness.nearest([[image["bytes"] for image in row["images"]] for row in rows])
    return [
        found and Match(row["id"], *items.names[found[1]], "embedding", None, found[0])
        for row, found in zip(rows, nearest, strict=True)
    ]
