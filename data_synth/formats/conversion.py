"""Read a dataset in one format and write it in another."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

from datasets import Features, Image, List, Value, load_dataset
from huggingface_hub import get_token

from data_synth.formats import readers_text, readers_verifiers, readers_vl, writers_training
from data_synth.formats.config import ConvertConfig, Format
from data_synth.formats.rows import checked
from data_synth.formats.source import Drops, records
from data_synth.formats.writers import WRITERS, Target
from vlprm.data.dataset import FEATURES, write_parquet
from vlprm.data.importing import ImageFolder, Record
from vlprm.data.trl_format import stepwise_row
from vlprm.errors import RecordError, UserError
from vlprm.images import keep_decoded

log = logging.getLogger(__name__)

READERS: dict[Format, Callable[[Record, ImageFolder], dict[str, Any]]] = {
    "vlprm": readers_vl.vlprm,
    "vl_prm300k": readers_vl.vl_prm300k,
    "visual_prm400k": readers_vl.visual_prm400k,
    "mm_prm": readers_vl.mm_prm,
    "omega_prm": readers_text.omega_prm,
    "prm800k": readers_text.prm800k,
    "math_shepherd": readers_text.math_shepherd,
    "trl": stepwise_row,
    "visual_process_bench": readers_vl.visual_process_bench,
    **readers_verifiers.READERS,
}
# Errors raised by records whose values have unexpected types or sizes.
MALFORMED = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)
DECODED = 1 << 26  # bytes of decoded images in memory
ALL_WRITERS = WRITERS | writers_training.WRITERS
TARGETS: dict[str, dict[str, Any]] = {
    "vlprm": FEATURES,
    "vlprm_paths": FEATURES,
    "trl": {k: FEATURES[k] for k in ("prompt", "completions", "images")} | {"labels": List(Value("bool"))},
    "chat": {"id": Value("string"), "images": List(Image(decode=False)), "conversations": List(writers_training.TURN),
             "answer": Value("string")},
    **writers_training.TARGETS,
}  # fmt: skip


def convert(config: ConvertConfig) -> None:
    """Convert a dataset, log dropped records and lost evidence, and push to the Hub if asked. UserError if the target
    exists, the folder of images or the Hub token is missing, or nothing could be converted."""
    if config.target.exists():
        raise UserError(f"{config.target} already exists; choose another target, or remove it")
    if config.images and not config.images.is_dir():
        raise UserError(f"{config.images} is not a folder; give --images the folder that the image paths start from")
    if config.push_to and not get_token():
        raise UserError("no Hub token for push_to; log in with `hf auth login`, or set HF_TOKEN")
    keep_decoded(DECODED)  # each image is opened a few times in a row
    drops, target = Drops(), Target(config.threshold)
    written = _write(config, _converted(config, drops, target))
    log.info("%d rows in %s; %s", written, config.target, drops)
    if lost := {what: n for what, n in target.lost.items() if n}:
        log.info("%s cannot hold: %s", config.to, ", ".join(f"{what} ({n})" for what, n in lost.items()))
    if not written:
        config.target.unlink()
        raise UserError(_nothing(config, drops, target))
    if config.push_to:
        load_dataset("parquet", data_files=str(config.target), split="train").push_to_hub(config.push_to)
        log.info("pushed to %s", config.push_to)


def _converted(config: ConvertConfig, drops: Drops, target: Target) -> Iterator[Record]:
    images = ImageFolder(config.images)
    for place, record in records(config.source, drops):
        try:
            row = checked(READERS[config.format](record, images))
        except RecordError as dropped:
            drops.add(dropped.cause, place)
            continue
        except MALFORMED:
            drops.add("malformed", place)
            continue
        target.rows += 1
        yield from ALL_WRITERS[config.to](row, target)


def _write(config: ConvertConfig, rows: Iterator[Record]) -> int:
    if config.target.suffix == ".jsonl":
        return _write_lines(config, rows)
    if config.target.suffix != ".parquet":
        raise UserError(f"{config.target} must end in .parquet, or, for trl without images, in .jsonl")
    return write_parquet(config.target, rows, Features(TARGETS[config.to]))


def _write_lines(config: ConvertConfig, rows: Iterator[Record]) -> int:
    draft, written = config.target.with_suffix(".draft"), 0
    draft.parent.mkdir(parents=True, exist_ok=True)
    with draft.open("w", encoding="utf-8") as file:
        for row in rows:
            if config.to != "trl" or row.pop("images"):
                raise UserError(f"{config.target} cannot hold images or evidence; give a target that ends in .parquet")
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += 1
    draft.replace(config.target)
    return written


def _nothing(config: ConvertConfig, drops: Drops, target: Target) -> str:
    if target.rows:
        return f"no row of {config.source} can be written as {config.to}; choose another --to"
    first = next((record for _, record in records(config.source, Drops())), None)
    fits = [name for name in READERS if name != config.format and first is not None and _looks_like(name, first)]
    columns = f"; its first record has {', '.join(sorted(first))}" if first else ""
    hint = f"; its first record looks like {' or '.join(fits)}" if fits else columns
    return f"no record of {config.source} could be read as {config.format} ({drops}){hint}"


def _looks_like(name: Format, record: Record) -> bool:
    try:
        checked(READERS[name](record, ImageFolder(None)))
    except RecordError as dropped:
        return dropped.cause == "no_image_folder"  # the record is readable but for its images
    except MALFORMED:
        return False
    return True
