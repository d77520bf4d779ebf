"""Step-label datasets of the field -> ours, and ours -> theirs.

    python -m data_synth.convert --source FILE --format math_shepherd --to vlprm --target runs/shepherd.parquet
    python -m data_synth.convert --source runs/demo/labels/dataset.parquet --format vlprm --to trl --target trl.parquet

A record that cannot be read is dropped and counted by cause; see docs/datasets.md for what each format keeps.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datasets import Features, Image, List, Value, load_dataset
from huggingface_hub import get_token
from jsonargparse.typing import ClosedUnitInterval

from data_synth.formats import readers_text, readers_vl
from data_synth.formats.source import Dropped, Drops, ImageFolder, Record, records
from data_synth.formats.writers import WRITERS, Target
from vlprm.config import run
from vlprm.dataset import FEATURES, write_parquet
from vlprm.records import write_atomically

log = logging.getLogger(__name__)

Format = Literal[
    "vlprm", "vl_prm300k", "visual_prm400k", "mm_prm", "omega_prm", "prm800k", "math_shepherd", "trl",
    "visual_process_bench",
]  # fmt: skip
READERS: dict[Format, Callable[[Record, ImageFolder], dict[str, Any]]] = {
    "vlprm": readers_vl.vlprm,
    "vl_prm300k": readers_vl.vl_prm300k,
    "visual_prm400k": readers_vl.visual_prm400k,
    "mm_prm": readers_vl.mm_prm,
    "omega_prm": readers_text.omega_prm,
    "prm800k": readers_text.prm800k,
    "math_shepherd": readers_text.math_shepherd,
    "trl": readers_vl.trl,
    "visual_process_bench": readers_vl.visual_process_bench,
}
_TURN = {"role": Value("string"), "content": Value("string")}
TARGETS: dict[str, dict[str, Any]] = {
    "vlprm": FEATURES,
    "vlprm_paths": FEATURES,
    "trl": {k: FEATURES[k] for k in ("prompt", "completions", "images")} | {"labels": List(Value("bool"))},
    "chat": {"id": Value("string"), "images": List(Image(decode=False)), "conversations": List(_TURN),
             "answer": Value("string")},
}  # fmt: skip


@dataclass(frozen=True)
class ConvertConfig:
    """Convert a dataset of step labels.

    Args:
        source: file, or folder of files, that ends in .jsonl, .json or .parquet.
        format: what the source is.
        to: vlprm (trees), vlprm_paths (a solution a row), trl or chat.
        target: file to write; trl may also be .jsonl, where it has no images.
        images: folder that the source's image paths are in.
        threshold: trl and chat: a target above it is correct.
        push_to: USER/NAME of a dataset on the Hub that the target is also pushed to, with the token of `hf auth login`.
    """

    source: Path
    format: Format
    to: Literal["vlprm", "vlprm_paths", "trl", "chat"]
    target: Path
    images: Path | None = None
    threshold: ClosedUnitInterval = 0.0
    push_to: str | None = None


def main(config: ConvertConfig) -> None:
    if config.target.exists():
        raise ValueError(f"{config.target} is there; give another target, or remove it")
    if config.push_to and not get_token():
        raise ValueError("no token for the Hub; log in with `hf auth login`, or set HF_TOKEN")
    drops, target = Drops(), Target(config.threshold)
    written = _write(config, _converted(config, drops, target))
    log.info("%d rows in %s; %s", written, config.target, drops)
    if lost := {what: n for what, n in target.lost.items() if n}:
        log.info("%s holds no: %s", config.to, ", ".join(f"{what} ({n})" for what, n in lost.items()))
    if not written:
        config.target.unlink()
        raise ValueError(f"nothing of {config.source} could be read as {config.format} ({drops}){_hint(config)}")
    if config.push_to:
        load_dataset("parquet", data_files=str(config.target), split="train").push_to_hub(config.push_to)
        log.info("pushed to %s", config.push_to)


def _converted(config: ConvertConfig, drops: Drops, target: Target) -> Iterator[Record]:
    images = ImageFolder(config.images)
    for place, record in records(config.source, drops):
        try:
            row = READERS[config.format](record, images)
        except Dropped as dropped:
            drops.add(dropped.cause, place)
            continue
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # of other types than the format has
            drops.add("malformed", place)
            continue
        yield from WRITERS[config.to](row, target)


def _write(config: ConvertConfig, rows: Iterator[Record]) -> int:
    if config.target.suffix == ".jsonl":
        return _write_lines(config, rows)
    if config.target.suffix != ".parquet":
        raise ValueError(f"{config.target} has to end in .parquet, or, for trl without images, in .jsonl")
    return write_parquet(config.target, rows, Features(TARGETS[config.to]))


def _write_lines(config: ConvertConfig, rows: Iterator[Record]) -> int:
    lines = []
    for row in rows:
        if config.to != "trl" or row.pop("images"):
            raise ValueError(f"{config.target} cannot hold images or evidence; give a target that ends in .parquet")
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_atomically(config.target, "".join(lines))
    return len(lines)


def _hint(config: ConvertConfig) -> str:
    """Which other formats read the first record."""
    first = next((record for _, record in records(config.source, Drops())), None)
    fits = []
    for name, read in READERS.items():
        try:
            if first is not None and read(first, ImageFolder(config.images)):
                fits.append(name)
        except (Dropped, AttributeError, IndexError, KeyError, TypeError, ValueError):
            continue
    return f"; its first record is read as {' or '.join(fits)}" if fits else ""


if __name__ == "__main__":
    run(main, ConvertConfig)
