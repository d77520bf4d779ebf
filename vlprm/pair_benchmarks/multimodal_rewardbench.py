"""Multimodal RewardBench (Yasunaga et al., arXiv 2502.14191; facebookresearch/multimodal_rewardbench): some 5,000 pairs
of answers in six categories. CC BY-NC; its images have the licences of their sources.

    {"ID": "mathvista_12", "Text": "...", "Image": "images/mathvista/12.jpg", "Output1": "...", "Output2": "...",
     "Better": "Output1", "Category": "reasoning"}

A folder has `all_data.json` and `images/`, as scripts/0_download_data.py makes them (the script leaves out Hateful
Memes). On the Hub, it is the copy that lmms-eval uses. Rule, from scripts/2_get_accuracy.py @ b4b92cd: a judge answers
once, with Output1 first; where its verdict cannot be read, a coin decides, which counts as half here. `safety` is
reported as bias (ids of PAIRS) and toxicity, `reasoning` as math and coding.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from vlprm.benchmarks.benchmark import Hub, read_rows
from vlprm.data.importing import Record
from vlprm.errors import RecordError, UserError
from vlprm.pair_benchmarks.counting import coin_if_none
from vlprm.pair_benchmarks.pairs import Pair, PairBenchmark, Source, one_of, required_text

SPLIT = {"safety": ("pairs", "bias", "toxicity"), "reasoning": ("math", "math", "coding")}


def rows(folder: Path) -> tuple[list[Record], Path]:
    """The rows of a folder. UserError if it has only the rows before the download of prompts, or none."""
    path = folder / "all_data.json"
    if not path.is_file() and (folder / "all_data_release.json").is_file():
        raise UserError(f"{folder} has rows without prompts; make all_data.json with its scripts/0_download_data.py")
    found = read_rows(path)
    if not all(isinstance(row, dict) for row in found):
        raise UserError(f"{path} does not hold JSON objects; make it again with scripts/0_download_data.py")
    return [dict(row) for row in found], path


def pair(row: Record, number: int) -> Pair:
    """The pair of a row. Ids may repeat, so a key has the row's number."""
    found, question, image = required_text(row, "ID"), required_text(row, "Text"), _image(row)
    category = required_text(row, "Category")
    if category in SPLIT:
        begins, if_so, otherwise = SPLIT[category]
        category = f"{category}/{if_so if found.lower().startswith(begins) else otherwise}"
    responses = (str(row.get("Output1") or ""),), (str(row.get("Output2") or ""),)
    better = one_of(row, "Better", ("Output1", "Output2"))
    named = image.encode() if isinstance(image, str) else image
    problem = hashlib.sha256(question.encode() + named).hexdigest()[:16]
    return Pair(f"{number}/{found}", problem, question, (image,), responses, better, category)


def _image(row: Record) -> Source:
    image = row.get("Image")
    data = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(data, str | bytes) or not data:
        raise RecordError("image_missing", "its Image is neither a path nor a file; copy the published version")
    return data


BENCHMARK = PairBenchmark(
    name="multimodal_rewardbench",
    hub=Hub("syhuggingface/multimodal_rewardbench", (None,), "test", ("Image",)),
    rows=rows,
    pair=pair,
    orders="given",
    credit=coin_if_none,
    no_result_rule="it counts as half, the mean of the official coin",
)
