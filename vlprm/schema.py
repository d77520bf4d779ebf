"""The types shared by all stages: problems, steps, solutions, labels and trees, with conversion to and from JSON.

This module imports nothing else of the project. A record on disk is `to_json(value)`; `from_json(Solution, record)`
reads it back and refuses a record of another schema version.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_origin

import cattrs
from cattrs.v import format_exception

SCHEMA_VERSION = 2

StepKind = Literal["perception", "reasoning", "zoom", "answer", "other"]
ErrorKind = Literal["perception", "reasoning", "action"]
AnswerType = Literal["integer", "word", "choice", "float", "text", "list", "expression"]
Aggregation = Literal["last", "min", "mean", "product", "mean_odds"]
STEP_KINDS: tuple[str, ...] = get_args(StepKind)
ERROR_KINDS: tuple[str, ...] = get_args(ErrorKind)
BLANK = -1  # `image` of a white region that stands for no image, as a control
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # half of a surrogate pair, which JSON may hold and UTF-8 cannot

T = TypeVar("T")


class SchemaError(ValueError):
    """A record or a value that violates the schema. Commands print it without a traceback."""


@dataclass(frozen=True)
class Region:
    """A box in pixels of a problem's image: x0 < x1, y0 < y1, finite. `image` is the image's index; a region of the
    image `BLANK` is white. Models read and write boxes in a dialect of this (vlprm.zoom.boxes)."""

    x0: float
    y0: float
    x1: float
    y1: float
    image: int = 0

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in (self.x0, self.y0, self.x1, self.y1)):
            raise SchemaError(f"{self}: a region needs finite coordinates; correct them")
        if not (self.x0 < self.x1 and self.y0 < self.y1):
            raise SchemaError(f"{self}: a region needs x0 < x1 and y0 < y1; order the corners")
        if self.image < BLANK:
            raise SchemaError(f"{self}: `image` must be an index from 0, or {BLANK} for a blank")

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    def overlap(self, other: Region) -> float:
        """Area shared with another region, in square pixels; regions of different images share nothing."""
        if self.image != other.image:
            return 0.0
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(0.0, width) * max(0.0, height)


@dataclass(frozen=True)
class Problem:
    """A question about images. `images` are encoded files (PNG, JPEG); `meta` holds the scene of a synthetic item."""

    id: str
    task: str
    question: str
    images: tuple[bytes, ...]
    answer: str | None
    answer_type: AnswerType
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One paragraph of a solution, verbatim with its tag. An executed zoom has its `region`; a refused zoom that got a
    reply has the text that the policy was `told` instead of a crop."""

    kind: StepKind
    text: str
    region: Region | None = None
    told: str = ""

    @property
    def ends_turn(self) -> bool:
        """Whether the policy's turn ends here, followed by a turn that shows a crop or a message."""
        return self.region is not None or self.told != ""


@dataclass(frozen=True)
class Solution:
    """A sampled solution.

    `answer`: the extracted final answer; None is *no result*, never a wrong answer. `stop`: why sampling ended; only
    `answer` is a result. `tokens`: number of tokens that the policy sampled. `read`: number that it read again after
    this solution's zooms; solutions that are drawn together share the prompt, which is not counted here.
    """

    problem_id: str
    steps: tuple[Step, ...]
    answer: str | None
    stop: str
    tokens: int
    read: int = 0


@dataclass(frozen=True)
class Verdict:
    """A verdict on one step, by a source such as a judge, or from the ground truth. `error_kind` is None for a correct
    step.

    A judge may give a `reason`, and a `correction` of the first wrong step. `agreement` is the share of its samples
    with a result that agree with the verdict.
    """

    correct: bool
    error_kind: ErrorKind | None = None
    reason: str = ""
    correction: str = ""
    agreement: float = 1.0

    def __post_init__(self) -> None:
        assert self.correct == (self.error_kind is None), self


@dataclass(frozen=True)
class StepLabel:
    """A step's evidence and the target computed from it.

    Of `mc_total` rollouts from the prefix that ends here, `mc_valid` have a result and `mc_correct` are correct; only
    `mc_valid` counts in denominators. `votes` has the verdict of each source that spoke about the step, by the source's
    name, in the order in which the sources were given; one that was not asked or gave no result is absent. `target` in
    [0, 1] was computed by the fusion rule `rule`; None means no loss. `passed_valid` and `passed_correct` count
    rollouts from an earlier prefix that passed through the step. A search chooses prefixes by their outcomes, so adding
    them to the Monte Carlo value would bias it; a posterior may use them.
    """

    mc_correct: int = 0
    mc_valid: int = 0
    mc_total: int = 0
    votes: dict[str, Verdict] = field(default_factory=dict)
    target: float | None = None
    error_kind: ErrorKind | None = None
    rule: str = ""
    passed_correct: int = 0
    passed_valid: int = 0

    @property
    def seen_correct(self) -> int:
        """Correct rollouts from or through the step."""
        return self.mc_correct + self.passed_correct

    @property
    def seen_valid(self) -> int:
        """Rollouts from or through the step that have a result."""
        return self.mc_valid + self.passed_valid

    def said(self, correct: bool) -> Verdict | None:
        """The first vote that calls the step correct, or wrong."""
        return next((vote for vote in self.votes.values() if vote.correct == correct), None)


@dataclass(frozen=True)
class TreeNode:
    """A step, the index of its parent node (-1: the prompt), and its label."""

    step: Step
    parent: int
    label: StepLabel = StepLabel()


@dataclass(frozen=True)
class StepTree:
    """The search tree of one problem. Nodes are in creation order, so parents precede their children.

    `leaves` lists, for each complete solution, its last node and its answer (None: no result). `rollouts` (of
    `planned`, since some were not needed), `requests` and `tokens` (sampled) are the cost of the search; `stops` counts
    why rollouts ended.
    """

    problem_id: str
    nodes: tuple[TreeNode, ...]
    leaves: tuple[tuple[int, str | None], ...]
    root: StepLabel = StepLabel()
    rollouts: int = 0
    planned: int = 0
    requests: int = 0
    tokens: int = 0
    stops: dict[str, int] = field(default_factory=dict)

    @property
    def parents(self) -> list[int]:
        """The parent of each node."""
        return [node.parent for node in self.nodes]

    def path(self, node: int) -> list[int]:
        """Indices of the nodes from the first step to `node`."""
        return path_to(node, self.parents)


def path_to(node: int, parents: Sequence[int]) -> list[int]:
    """Indices of the steps from the first one to `node`; empty for -1, the prompt."""
    indices: list[int] = []
    while node >= 0:
        indices.append(node)
        node = parents[node]
    return indices[::-1]


def with_ancestors(nodes: Iterable[int], parents: Sequence[int] | Mapping[int, int]) -> set[int]:
    """The nodes and all nodes above them."""
    found: set[int] = set()
    for node in nodes:
        while node >= 0 and node not in found:
            found.add(node)
            node = parents[node]
    return found


def _exactly(value: Any, kind: Any) -> Any:
    """The value itself if it has the field's type: cattrs alone would convert "3", 3.5 and True to an integer."""
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise SchemaError(f"{json.dumps(value)} is not {_KINDS[kind]}")
    return value


def _is_literal(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is Literal


def _listed(value: Any, kind: Any) -> Any:
    """The value itself if the field's type lists it."""
    if value not in get_args(kind):
        raise SchemaError(f"{json.dumps(value)} is not one of {', '.join(map(str, get_args(kind)))}")
    return value


_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_converter = cattrs.Converter(forbid_extra_keys=True)
_converter.register_unstructure_hook(bytes, lambda b: base64.b64encode(b).decode("ascii"))
_converter.register_structure_hook(bytes, lambda s, _: base64.b64decode(s, validate=True))
_converter.register_structure_hook_func(_is_literal, _listed)
for _kind in (int, float, str, bool):
    _converter.register_structure_hook(_kind, _exactly)


def to_json(value: Any) -> dict[str, Any]:
    """Convert a schema dataclass to a JSON object with its schema version."""
    return {"schema": SCHEMA_VERSION, **_converter.unstructure(value)}


def from_json(cls: type[T], record: dict[str, Any]) -> T:
    """Read what `to_json` wrote. SchemaError on another schema version or unknown fields."""
    if record.get("schema") != SCHEMA_VERSION:
        raise SchemaError(
            f"record has schema {record.get('schema')!r}, but this code reads {SCHEMA_VERSION}; create the file again"
        )
    body = {key: value for key, value in record.items() if key != "schema"}
    return structured(cls, body, f"not a {cls.__name__} record")


def structured(cls: type[T], body: Any, problem: str) -> T:
    """Convert a JSON object to a dataclass, checking the type of each value. SchemaError opens with `problem` and names
    unknown or missing fields and wrong types."""
    if not isinstance(body, dict):
        raise SchemaError(f"{problem}: it is a {type(body).__name__}, not an object")
    try:
        return _converter.structure(body, cls)
    except cattrs.BaseValidationError as error:
        reasons = map(_placed, cattrs.transform_error(error, format_exception=_reason))
        raise SchemaError(f"{problem}: {'; '.join(reasons)}") from error


def _placed(said: str) -> str:
    """A message of cattrs with the name of its field first, once."""
    reason, _, at = said.partition(" @ $")
    field = f"{at.strip('.')}: " if at else ""
    return reason if reason.startswith(field) else field + reason


def _reason(error: BaseException, kind: Any) -> str:
    """The message of a validation error; cattrs alone says "unknown error" or only names the type."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return f"unknown field {', '.join(sorted(error.extra_fields))}"
    said = format_exception(error, kind)
    return str(error) if isinstance(error, ValueError) or said.startswith("unknown error") else said


@dataclass(frozen=True)
class StepScore:
    """Probabilities that a step is correct, a perception error or a reasoning error, which sum to 1. The last two are
    None for a verdict head. `surprise`: nats of the step's least likely token under the backbone's LM head, if the
    model reads it. `spread`: standard deviation of `correct` over the models of an ensemble. `value`: the share of
    rollouts from here that will be right, if the model predicts it. `sd`: standard deviation of the Beta distribution
    of this share, if the model predicts that; its mean is the value or, without one, `correct`. `log_odds`: what the
    step adds to the log-odds of `correct`, with an implicit head."""

    correct: float
    perception: float | None
    reasoning: float | None
    surprise: float | None = None
    spread: float | None = None
    value: float | None = None
    sd: float | None = None
    log_odds: float | None = None
