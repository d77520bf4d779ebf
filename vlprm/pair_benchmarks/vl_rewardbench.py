"""VL-RewardBench (Li et al., arXiv 2411.17451; MMInstruction/VL-RewardBench): 1,250 pairs of answers about one image.
MIT; for research, since some answers are those of closed models.

    {"id": "RLAIF-V-3", "query": "What is ...?", "response": ["...", "..."], "human_ranking": [0, 1],
     "image": {"bytes": ...}}

[0, 1] prefers the first response. A folder has `test-00000-of-00001.parquet`, itself or in `data`. Rule, from cal.py of
vl-rewardbench/VL_RewardBench @ 9b10abd: a judge answers several times, each in an order that is drawn; the majority
counts, and a pair with an answer that cannot be read is left out. The group comes from the id, and `macro_accuracy` is
the mean of the three.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from vlprm.benchmarks.benchmark import Hub
from vlprm.data.importing import Record, required_field
from vlprm.errors import RecordError, UserError
from vlprm.pair_benchmarks.counting import by_majority
from vlprm.pair_benchmarks.pairs import Pair, PairBenchmark, one_of, required_text

FILE = "test-00000-of-00001.parquet"
GROUPS = {
    "RLAIF": "hallucination",
    "RLHF": "hallucination",
    "hallucination": "hallucination",
    "mathverse": "reasoning",
    "mmmu": "reasoning",
}  # the beginning of an id; all others are `general`


def rows(folder: Path) -> tuple[list[Record], Path]:
    """The rows of a folder. UserError if it has no readable file of the benchmark."""
    import pyarrow
    import pyarrow.parquet

    path = next((path for path in (folder / FILE, folder / "data" / FILE) if path.is_file()), None)
    if path is None:
        raise UserError(f"{folder} has no file {FILE}; give the folder of MMInstruction/VL-RewardBench")
    try:
        return pyarrow.parquet.read_table(path).to_pylist(), path
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a parquet file ({type(error).__name__}); download it again") from error


def pair(row: Record, number: int) -> Pair:
    """The pair of a row. Ids may repeat, so a key has the row's number."""
    found, question = required_text(row, "id"), required_text(row, "query").replace("<image>\n", "")
    responses = required_field(row, "response", list)
    if len(responses) != 2 or not all(isinstance(text, str) for text in responses):
        raise RecordError("response_count", "its response is not a list of two texts; copy the published version")
    better = one_of(row, "human_ranking", ([0, 1], [1, 0]))
    image = required_field(row, "image", dict).get("bytes")
    if not isinstance(image, bytes):
        raise RecordError("image_missing", "its image has no bytes; copy the published version")
    problem = hashlib.sha256(question.encode() + image).hexdigest()[:16]
    group = GROUPS.get(re.split("[_-]", found)[0], "general")
    return Pair(f"{number}/{found}", problem, question, (image,), ((responses[0],), (responses[1],)), better, group)


BENCHMARK = PairBenchmark(
    name="vl_rewardbench",
    hub=Hub("MMInstruction/VL-RewardBench", (None,), "test", ("image",)),
    rows=rows,
    pair=pair,
    orders="drawn",
    credit=by_majority,
    no_result_rule="its pair is left out",
)
