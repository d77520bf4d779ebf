"""MathVerse: 788 diagram problems, each in six versions (ZrrSkywalker/MathVerse @ 937b090, AI4Math/MathVerse; MIT).

    {"sample_index": "4", "problem_index": "1", "problem_version": "Vision Dominant", "question": "...\\nChoices:\\nA:4
     \\nB:6", "image": "images_version_5/image_1.png", "answer": "D", "question_type": "multi-choice", "metadata":
     {"subject": "Plane Geometry", "subfield": "Angle", ...}, "query_wo": "...", "query_cot": "..."}

`all` are the five versions of the overall score; each is a subset as well, and so is `text_only`, which has no images
and can only be scored. In `vision_only` the image states the question.

The official scorer (evaluation/) lets a chat model extract the answer and another compare it, and stores the verdict as
`judgement`. `official` takes this verdict; a record without one is read by our rules.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vlprm.benchmarks.benchmark import Benchmark, Hub, Item, RawItem, file_rows, image_fields, steps_prompt
from vlprm.benchmarks.reading import judged, parted, read
from vlprm.errors import UserError

VERSIONS = {
    "text_dominant": "Text Dominant", "text_lite": "Text Lite", "vision_intensive": "Vision Intensive",
    "vision_dominant": "Vision Dominant", "vision_only": "Vision Only", "text_only": "Text Only",
}  # fmt: skip
_IN_IMAGE = "Read the question in the image and answer it."


def rows(folder: Path, subset: str) -> list[RawItem]:
    """The rows of a subset in a folder."""
    return file_rows(folder, ("testmini_text_only.json" if subset == "text_only" else "testmini.json",), "mathverse")


def item(row: RawItem) -> Item:
    """The item of a row."""
    version, metadata = row["problem_version"], row["metadata"]
    if version not in VERSIONS.values():
        raise UserError(
            f"{row['sample_index']} has the version {version!r}; MathVerse has {', '.join(VERSIONS.values())}"
        )
    choice = row["question_type"] == "multi-choice"
    question, options = parted(row["question"], r"\n(?:Choices:\s*)?([A-H]):") if choice else (row["question"], ())
    return Item(
        id=str(row["sample_index"]),
        question=question.removesuffix("\nChoices:") or _IN_IMAGE,
        options=options,
        gold=(row["answer"],),
        answer=row["answer"],
        answer_type="choice" if choice else "expression",
        images=image_fields(row, ("image",)),
        groups={
            "version": (version,),
            "subject": (metadata["subject"],),
            "subfield": (metadata["subfield"],),
            "question_type": (row["question_type"],),
        },
        row=row,
    )


def _of_version(version: str) -> Callable[[Item], bool]:
    return lambda item: item.groups["version"] == (version,)


_HUB = "AI4Math/MathVerse"
BENCHMARK = Benchmark(
    name="mathverse",
    subsets={
        "all": lambda item: item.groups["version"] != (VERSIONS["text_only"],),
        **{name: _of_version(version) for name, version in VERSIONS.items()},
    },
    hub={
        "all": Hub(_HUB, ("testmini",), "testmini", ("image",)),
        "text_only": Hub(_HUB, ("testmini_text_only",), "testmini_text_only", ()),
    },
    rows=rows,
    item=item,
    prompts={
        "official": lambda item: str(item.row["query_wo"]),
        "official_cot": lambda item: str(item.row["query_cot"]),
        "steps": steps_prompt,
    },
    rules={"official": judged("judgement"), "read": read},
    key=lambda record: next((str(record[name]) for name in ("sample_index", "id") if name in record), None),
)
