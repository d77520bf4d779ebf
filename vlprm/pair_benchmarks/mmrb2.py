"""Multimodal RewardBench 2, the reasoning part (Hu et al., arXiv 2512.16899; facebookresearch/MMRB2): 1,000 pairs of
answers to visual puzzles and questions, some of them with images that the answer drew or cut out. CC BY-NC 4.0.

    {"id": "...", "prompt_source": "blink", "prompt_content": [["image", "input_images/a.png"], ["text", "Which ..."]],
     "response_a": {"model_name": "...", "response_content": [["text", "..."], ["image", "images/b.png"]]},
     "response_b": {...}, "chosen": "A"}

A folder has `reasoning.json` (`{"pairs": [...]}`) with its images, as benchmark/build_from_hf.py builds it; the Hub has
the same pairs as texts with `<image_1>` and lists of images. Rule, from evaluate/compute_scores/compute_accuracy.py @
7ff0552: a judge sees each pair in both orders, and every answer counts; one that is missing counts nowhere. The authors
report one number; groups here are the sources of the prompts.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from vlprm.benchmarks.benchmark import Hub, decoded
from vlprm.data.importing import Record, required_field
from vlprm.errors import RecordError, UserError
from vlprm.pair_benchmarks.counting import each_known
from vlprm.pair_benchmarks.pairs import Pair, PairBenchmark, Parts, Picture, one_of, pictures, required_text, said

_MARK = re.compile(r"<image_\d+>")


def rows(folder: Path) -> tuple[list[Record], Path]:
    """The rows of a folder. UserError if it has only the responses, or none."""
    path = folder / "reasoning.json"
    if not path.is_file() and (folder / "reasoning_response_only.json").is_file():
        raise UserError(f"{folder} has responses without prompts; build reasoning.json with MMRB2's build_from_hf.py")
    try:
        pairs = json.loads(decoded(path)).get("pairs")
    except (ValueError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not a JSON object (cut short?); build it again") from error
    if not isinstance(pairs, list) or not all(isinstance(row, dict) for row in pairs):
        raise UserError(f"{path} has no list `pairs` of objects; build it again")
    return pairs, path


def pair(row: Record, number: int) -> Pair:
    """The pair of a row, of a folder or of the Hub."""
    prompt = _parts(row, "prompt")
    leading = next((k for k, part in enumerate(prompt) if isinstance(part, str)), len(prompt))
    question = said(prompt[leading:], leading).strip()
    if not question:
        raise RecordError("no_prompt", "its prompt has no text; build the benchmark again")
    better = one_of({"chosen": str(row.get("chosen")).upper()}, "chosen", ("A", "B"))
    key, source = required_text(row, "id" if "id" in row else "pair_id"), required_text(row, "prompt_source")
    responses = _parts(row, "response_a"), _parts(row, "response_b")
    return Pair(key, _prompt_id(row, key), question, pictures(prompt), responses, better, source)


def _prompt_id(row: Record, key: str) -> str:
    """The id of the prompt, which pairs share; the Hub has it in JSON."""
    meta = row.get("prompt_metadata") or {}
    try:
        meta = json.loads(meta) if isinstance(meta, str) else meta
    except ValueError:
        meta = {}
    found = meta.get("id") if isinstance(meta, dict) else None
    return f"{row['prompt_source']}/{found}" if isinstance(found, str | int) else key


def _parts(row: Record, name: str) -> Parts:
    if f"{name}_text" in row:  # as on the Hub
        return _marked(
            required_field(row, f"{name}_text", str), [_stored(image) for image in row[f"{name}_images"] or ()]
        )
    inside = row if name == "prompt" else required_field(row, name, dict)
    field = "prompt_content" if name == "prompt" else "response_content"
    return tuple(_part(item, field) for item in required_field(inside, field, list))


def _part(item: Any, field: str) -> str | Picture:
    match item:
        case ["text", str(text)]:
            return text
        case ["image", str(name)]:
            return Picture(name)
    raise RecordError("part", f"its {field} has {item!r:.60}, which is neither a text nor an image; build it again")


def _stored(image: Any) -> bytes:
    data = image.get("bytes") if isinstance(image, dict) else None
    if not isinstance(data, bytes):
        raise RecordError("image_missing", "one of its images has no bytes; load the benchmark from the Hub again")
    return data


def _marked(text: str, images: list[bytes]) -> Parts:
    """A text with the images in the places of its marks, in order; those without a mark come last."""
    texts = _MARK.split(text)
    if len(texts) - 1 > len(images):
        raise RecordError("image_count", f"it has {len(images)} images for {len(texts) - 1} marks; load it again")
    parts: list[str | Picture] = [texts[0]]
    for image, after in zip(images, texts[1:], strict=False):
        parts += [Picture(image), after]
    parts += [Picture(image) for image in images[len(texts) - 1 :]]
    return tuple(part for part in parts if part != "")


BENCHMARK = PairBenchmark(
    name="mmrb2",
    hub=Hub(
        "rl-research/multimodal-rewardbench-2",
        ("reasoning",),
        "test",
        ("prompt_images", "response_a_images", "response_b_images"),
    ),
    rows=rows,
    pair=pair,
    orders="both",
    credit=each_known,
    no_result_rule="an answer without a result is left out",
)
