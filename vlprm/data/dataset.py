"""The step-label dataset on disk: parquet, images embedded as bytes, one row a tree. Written by `data_synth`, read by
`train` and `eval`, and by anyone's program.

    id            the problem's id
    images        List(Image), bytes inside
    prompt        the question
    completions   text of each step of the tree
    parents       index of each step's parent step, -1 for a first step
    leaves        {"node", "answer", "right"} of each complete solution: where it ends, what it answers (null: no
                  result), whether that is the gold answer
    labels        target of each step in [0, 1]; null means no loss
    error_kinds   "perception", "reasoning", "action" or null
    answer        the gold answer
    evidence      JSON, of each step: `label` (what its target was made of), `region` (of an executed zoom),
                  `corrected_by` (for a first wrong step: a right one that the policy wrote in its place, or null; the
                  judge's `correction`, if it gave one, stands in its verdict in `label`), and `zoom` (of a zoom: its
                  `vlprm.zoom.labels.ZoomLabel`, with its class as `credit`)
    meta          JSON: task, question type, rule, judge, what is believed of it, the counts of the prompt (`root`), and
                  the leaves of the solutions that training learns from, in order (`solutions`; see
                  vlprm.data.selection): where a judge was asked, those that it read

A step has the same target in every solution that shares it, so a tree's row holds one target a step.
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
from vlprm.schema import Problem, Region, Step, StepLabel, StepTree, from_json, to_json
from vlprm.steps import parse_step, step_kind
from vlprm.zoom.labels import label_tree

ROW_GROUP = 100

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
    """One complete solution of a tree: its steps, their labels, whether its answer is right, and for a first wrong step
    a right one: what the policy wrote in its place elsewhere in the tree, or else what the judge says it should be.
    `place` is its place among the solutions that training learns from; None where it is none of them, or where the
    dataset does not say."""

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
    """A row of the dataset. `right` goes with `tree.leaves`; `regions` are the true regions of the problem's zooms, by
    name, where its task knows them (`vlprm.tasks.known_regions`)."""
    labels = [node.label for node in tree.nodes]
    corrections = mined_corrections(labels, [node.parent for node in tree.nodes])
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
        "parents": [node.parent for node in tree.nodes],
        "leaves": leaves,
        "labels": [label.target for label in labels],
        "error_kinds": [label.error_kind for label in labels],
        "answer": problem.answer,
        "evidence": json.dumps(evidence),
        "meta": json.dumps(meta),
    }


def write_dataset(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write the dataset at once; how many rows there were. UserError where there are none."""
    written = write_parquet(path, rows, Features(FEATURES))
    if not written:
        path.unlink()
        raise UserError(
            f"{path} would be empty: no problem was solved sometimes and failed sometimes; use more problems"
        )
    return written


def write_parquet(path: Path, rows: Iterable[dict[str, Any]], features: Features) -> int:
    """Write rows as a parquet file that `datasets` reads with these features, a few of them in memory at a time.
    Every image is asserted to have its bytes, since `datasets` would otherwise store a path."""
    draft = path.with_suffix(".draft")
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with ParquetWriter(draft, features.arrow_schema) as writer:
        for group in batches(rows, ROW_GROUP):
            assert all(image["bytes"] for row in group for image in row["images"])
            writer.write_table(Dataset.from_list(group, features=features).data.table.select(list(features)))
            written += len(group)
    draft.replace(path)
    return written


def batches(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """The values in lists of so many; the last may be shorter."""
    remaining = iter(values)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a dataset file, all in memory; see `iterate_rows`."""
    return list(iterate_rows(path))


def iterate_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a dataset file, a few in memory at a time. UserError names the file if it is missing, unreadable,
    foreign or empty."""
    with open_parquet(path) as file:
        if missing := sorted(set(COLUMNS) - set(file.schema_arrow.names)):
            raise UserError(f"{path} lacks the columns {', '.join(missing)}; see vlprm/data/dataset.py for the format")
        if file.metadata.num_rows == 0:
            raise UserError(f"{path} has no rows; make it from more problems")
        yield from table_rows(file)


def open_parquet(path: Path) -> ParquetFile:
    """A parquet file. UserError names it if it is missing or unreadable."""
    if not path.is_file():
        raise UserError(f"no dataset {path}; make it with `python -m data_synth.label`")
    try:
        return ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a readable parquet file; make it again with `python -m data_synth.label`"
        ) from error


def table_rows(file: ParquetFile) -> Iterator[dict[str, Any]]:
    """The rows of an open file, a few in memory at a time."""
    for batch in file.iter_batches(batch_size=ROW_GROUP):
        yield from batch.to_pylist()


def row_paths(row: dict[str, Any]) -> list[LabelledPath]:
    """The complete solutions of a tree row, with the labels of their steps. UserError names a row whose columns do not
    go together, or that lacks an image."""
    _check_row(row)
    meta = json.loads(row["meta"])
    problem = Problem(
        row["id"], meta["task"], row["prompt"], tuple(i["bytes"] for i in row["images"]), row["answer"],
        meta["answer_type"], meta,
    )  # fmt: skip
    evidence = json.loads(row["evidence"])
    steps = [
        Step(step_kind(text), text, e["region"] and from_json(Region, e["region"]), e.get("told", ""))
        for text, e in zip(row["completions"], evidence, strict=True)
    ]
    # The columns are the labels; the evidence tells what they were made of.
    labels = [
        dataclasses.replace(from_json(StepLabel, e["label"]), target=target, error_kind=kind)
        for e, target, kind in zip(evidence, row["labels"], row["error_kinds"], strict=True)
    ]
    places = {leaf: place for place, leaf in enumerate(meta.get("solutions", ()))}
    paths = []
    for leaf in row["leaves"]:
        nodes = _ancestors(row["parents"], leaf["node"])
        corrected = (_corrected(evidence[n].get("corrected_by"), steps, labels[n]) for n in nodes)
        paths.append(
            LabelledPath(
                problem, tuple(steps[n] for n in nodes), tuple(nodes), tuple(labels[n] for n in nodes), leaf["right"],
                tuple(corrected), places.get(leaf["node"]),
            )
        )  # fmt: skip
    return paths


def _corrected(sibling: int | None, steps: Sequence[Step], label: StepLabel) -> Step | None:
    if sibling is not None:
        return steps[sibling]
    judged = label.judge.correction if label.judge and called_wrong(label) else ""
    return parse_step(judged) if judged else None


def _check_row(row: dict[str, Any]) -> None:
    lengths = {name: len(row[name]) for name in ("completions", "parents", "labels", "error_kinds")}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise UserError(f"row {row['id']} has {said}; give every step one of each (a label may be null)")
    if not all(image and image["bytes"] for image in row["images"]):
        raise UserError(f"row {row['id']} has an image without its bytes; embed them, or datasets keeps paths")


def row_evidence(row: dict[str, Any]) -> TreeEvidence:
    """The counts and verdicts of a row's steps. UserError where the row was made without counts of its prompt."""
    meta = json.loads(row["meta"])
    if "root" not in meta:
        raise UserError(f"row {row['id']} has no counts of its prompt; make the dataset with data_synth.label")
    labels = [from_json(StepLabel, e["label"]) for e in json.loads(row["evidence"])]
    kinds = [step_kind(text) for text in row["completions"]]
    return TreeEvidence(labels, kinds, row["parents"], from_json(StepLabel, meta["root"]))


def _ancestors(parents: Sequence[int], node: int) -> list[int]:
    chain: list[int] = []
    while node >= 0:
        chain.append(node)
        node = parents[node]
    return chain[::-1]
