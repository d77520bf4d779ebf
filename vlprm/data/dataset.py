"""The step-label dataset on disk: parquet with one row per tree and images embedded as bytes.

    id            the problem's id
    images        List(Image), bytes inside
    prompt        the question
    completions   text of each step of the tree
    parents       index of each step's parent step, -1 for a first step
    leaves        {"node", "answer", "right"} per complete solution: its last step, its answer (null: no result), and
                  whether that is the gold answer
    labels        target of each step in [0, 1]; null means no loss
    error_kinds   "perception", "reasoning", "action" or null
    answer        the gold answer
    evidence      JSON, one object per step: `label` (the evidence of its target), `region` (of an executed zoom),
                  `corrected_by` (for a first wrong step: the index of a right step that the policy wrote in its place,
                  or null; a judge's `correction` is in its vote in `label`), and `zoom` (for a zoom: its
                  `vlprm.zoom.labels.ZoomLabel`, with its class as `credit`)
    meta          JSON: task, question type, rule, the sources of votes with their estimated rates (`reliability`), the
                  counts of the prompt (`root`), and `solutions`: the leaves of the solutions that training learns from,
                  in order (see vlprm.data.selection); if judges were asked, those that they read

`data_synth` writes it, `train` and `eval` read it. All solutions through a step share its target, so a row has one
target per step.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from datasets import Dataset, Features, Image, List, Value
from pyarrow import ArrowException
from pyarrow.parquet import ParquetFile, ParquetWriter

from vlprm.errors import UserError
from vlprm.labels.fusion import called_wrong, mined_corrections
from vlprm.labels.judge_reliability import TreeEvidence
from vlprm.schema import Problem, Region, Step, StepLabel, StepTree, from_json, path_to, to_json
from vlprm.steps import parse_step, step_kind
from vlprm.zoom.labels import label_tree

# A row group holds at most this many rows and about this many bytes, so that a reader of single rows reads little.
ROW_GROUP, ROW_GROUP_BYTES = 100, 8 << 20

T = TypeVar("T")

FEATURES = {
    "id": Value("string"),
    "images": List(Image(decode=False)),
    "prompt": Value("string"),
    "completions": List(Value("string")),
    "parents": List(Value("int32")),
    "leaves": List({"node": Value("int32"), "answer": Value("string"), "right": Value("bool")}),
    "labels": List(Value("float32")),
    "error_kinds": List(Value("string")),
    "answer": Value("string"),
    "evidence": Value("string"),
    "meta": Value("string"),
}


COLUMNS = tuple(FEATURES)


@dataclass(frozen=True)
class LabelledPath:
    """One complete solution of a tree.

    `right`: whether its answer is right. `corrected`: for a first wrong step, the right step that the policy wrote in
    its place elsewhere in the tree, or else the judge's correction. `place`: index among the solutions that training
    learns from; None if training skips it or the dataset does not say.
    """

    problem: Problem
    steps: tuple[Step, ...]
    nodes: tuple[int, ...]
    labels: tuple[StepLabel, ...]
    right: bool | None
    corrected: tuple[Step | None, ...] = ()
    place: int | None = None


def tree_row(
    problem: Problem,
    tree: StepTree,
    right: Sequence[bool | None],
    meta: dict[str, Any],
    regions: Mapping[str, Region] | None = None,
) -> dict[str, Any]:
    """A row of the dataset. `right` matches `tree.leaves`. `regions` are the true regions of the problem's zooms by
    name, if its task knows them (`vlprm.tasks.known_regions`)."""
    labels = [node.label for node in tree.nodes]
    corrections = mined_corrections(labels, tree.parents)
    zooms = {
        n: {**dataclasses.asdict(label), "credit": label.credit} for n, label in label_tree(tree, regions or {}).items()
    }
    evidence = [
        {
            "label": to_json(node.label),
            "region": None if node.step.region is None else to_json(node.step.region),
            "told": node.step.told,
            "corrected_by": correction,
            "zoom": zooms.get(n),
        }
        for n, (node, correction) in enumerate(zip(tree.nodes, corrections, strict=True))
    ]
    leaves = [{"node": n, "answer": a, "right": r} for (n, a), r in zip(tree.leaves, right, strict=True)]
    meta = {
        "task": problem.task,
        "answer_type": problem.answer_type,
        **problem.meta,
        **meta,
        "root": to_json(tree.root),
    }
    return {
        "id": problem.id,
        "images": [{"bytes": data, "path": None} for data in problem.images],
        "prompt": problem.question,
        "completions": [node.step.text for node in tree.nodes],
        "parents": tree.parents,
        "leaves": leaves,
        "labels": [label.target for label in labels],
        "error_kinds": [label.error_kind for label in labels],
        "answer": problem.answer,
        "evidence": json.dumps(evidence),
        "meta": json.dumps(meta),
    }


def write_dataset(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write the dataset and return the number of rows. UserError if there are none."""
    written = write_parquet(path, rows, Features(FEATURES))
    if not written:
        path.unlink()
        raise UserError(
            f"{path} would be empty: no problem was solved sometimes and failed sometimes; use more problems"
        )
    return written


def write_parquet(path: Path, rows: Iterable[dict[str, Any]], features: Features) -> int:
    """Write rows as a parquet file with these `datasets` features, a few rows in memory at a time, and return their
    number. Asserts that images have bytes, because `datasets` would store a path instead."""
    draft = path.with_suffix(".draft")
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with ParquetWriter(draft, features.arrow_schema) as writer:
        for group in _row_groups(rows):
            assert all(image["bytes"] for row in group for image in row["images"])
            writer.write_table(Dataset.from_list(group, features=features).data.table.select(list(features)))
            written += len(group)
    draft.replace(path)
    return written


def _row_groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        weight = sum(len(image["bytes"]) for image in row["images"] if image["bytes"])
        weight += sum(len(value) for value in row.values() if isinstance(value, str))
        if group and (len(group) == ROW_GROUP or size + weight > ROW_GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(row)
        size += weight
    if group:
        yield group


def batches(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` values; the last may be shorter."""
    remaining = iter(values)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a dataset file, all in memory; see `iterate_rows`."""
    return list(iterate_rows(path))


def iterate_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset file, a few in memory at a time. UserError names the file if it is missing,
    unreadable, empty or in another format."""
    with open_parquet(path) as file:
        check_columns(path, file.schema_arrow.names)
        if file.metadata.num_rows == 0:
            raise UserError(f"{path} has no rows; make it from more problems")
        yield from table_rows(file)


def table_rows(file: ParquetFile) -> Iterator[dict[str, Any]]:
    """Yield the rows of an open file, a row group or ROW_GROUP rows in memory at a time."""
    for group in range(file.num_row_groups):  # a batch of all groups would join small ones
        for batch in file.iter_batches(ROW_GROUP, [group]):
            yield from batch.to_pylist()


def row_count(path: Path) -> int:
    """Number of rows of a dataset file."""
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def check_columns(path: Path, columns: Iterable[str]) -> None:
    """UserError if a dataset file lacks columns."""
    if missing := sorted(set(COLUMNS) - set(columns)):
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; see vlprm/data/dataset.py for the format")


def open_parquet(path: Path, maker: str = "data_synth.label") -> ParquetFile:
    """Open a parquet file. UserError names the file if it is missing or unreadable, and the command that makes it,
    `maker`."""
    if not path.is_file():
        if path.is_dir():
            example = min(path.glob("*.parquet"), default=path / "dataset.parquet")
            raise UserError(f"{path} is a folder; name the file in it, such as {example}")
        raise UserError(f"no dataset {path}; make it with `python -m {maker}`")
    try:
        return ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable parquet file; make it again with `python -m {maker}`") from error


def row_paths(row: dict[str, Any]) -> list[LabelledPath]:
    """The complete solutions of a row, with the labels of their steps. UserError as of `check_row`."""
    check_row(row)
    problem, evidence = row_problem(row), json.loads(row["evidence"])
    steps = row_steps(row, evidence)
    # The columns hold the labels, the evidence their sources.
    labels = [
        dataclasses.replace(from_json(StepLabel, e["label"]), target=target, error_kind=kind)
        for e, target, kind in zip(evidence, row["labels"], row["error_kinds"], strict=True)
    ]
    places = {leaf: place for place, leaf in enumerate(problem.meta.get("solutions", ()))}
    paths = []
    for leaf, (nodes, right) in zip(row["leaves"], row_solutions(row), strict=True):
        corrected = (_corrected(evidence[n].get("corrected_by"), steps, labels[n]) for n in nodes)
        paths.append(
            LabelledPath(
                problem, tuple(steps[n] for n in nodes), tuple(nodes), tuple(labels[n] for n in nodes), right,
                tuple(corrected), places.get(leaf["node"]),
            )
        )  # fmt: skip
    return paths


def row_problem(row: Mapping[str, Any]) -> Problem:
    """The problem of a row."""
    meta = json.loads(row["meta"])
    images = tuple(image["bytes"] for image in row["images"])
    return Problem(row["id"], meta["task"], row["prompt"], images, row["answer"], meta["answer_type"], meta)


def row_steps(row: Mapping[str, Any], evidence: Sequence[Mapping[str, Any]]) -> list[Step]:
    """The steps of a row whose `evidence` is parsed."""
    return [
        Step(step_kind(text), text, e["region"] and from_json(Region, e["region"]), e.get("told", ""))
        for text, e in zip(row["completions"], evidence, strict=True)
    ]


def _corrected(sibling: int | None, steps: Sequence[Step], label: StepLabel) -> Step | None:
    if sibling is not None:
        return steps[sibling]
    if not called_wrong(label):
        return None
    corrections = (vote.correction for vote in label.votes.values() if not vote.correct and vote.correction)
    return next((parse_step(correction) for correction in corrections), None)


def row_solutions(row: dict[str, Any]) -> list[tuple[list[int], bool | None]]:
    """The steps of each complete solution of a row, and whether its answer is right."""
    return [(path_to(leaf["node"], row["parents"]), leaf["right"]) for leaf in row["leaves"]]


def check_row(row: dict[str, Any]) -> None:
    """UserError names a row with columns of different lengths or an image without bytes."""
    lengths = {name: len(row[name]) for name in ("completions", "parents", "labels", "error_kinds")}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise UserError(f"row {row['id']} has {said}; give one of each per step (a label may be null)")
    if not all(image and image["bytes"] for image in row["images"]):
        raise UserError(f"row {row['id']} has an image without bytes; embed the image file")


def row_evidence(row: dict[str, Any]) -> TreeEvidence:
    """The counts and verdicts of a row's steps. UserError if the row lacks the counts of its prompt."""
    meta = json.loads(row["meta"])
    if "root" not in meta:
        raise UserError(f"row {row['id']} has no counts of its prompt; make the dataset with data_synth.label")
    labels = [from_json(StepLabel, e["label"]) for e in json.loads(row["evidence"])]
    kinds = [step_kind(text) for text in row["completions"]]
    return TreeEvidence(labels, kinds, row["parents"], from_json(StepLabel, meta["root"]))
