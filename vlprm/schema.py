"""The types that every stage speaks: problems, steps, solutions, labels and trees, with JSON both ways.

This module imports nothing of ours. A record on disk is `to_json(value)`; `from_json(Solution, record)` reads it
back and refuses a record of another schema version.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

import cattrs
from cattrs.v import format_exception

SCHEMA_VERSION = 1

StepKind = Literal["perception", "reasoning", "zoom", "answer", "other"]
ErrorKind = Literal["perception", "reasoning", "action"]
AnswerType = Literal["integer", "word", "choice", "float", "text", "list", "expression"]
Aggregation = Literal["last", "min", "mean", "product", "mean_odds"]
STEP_KINDS: tuple[str, ...] = get_args(StepKind)
ERROR_KINDS: tuple[str, ...] = get_args(ErrorKind)
BLANK = -1  # the number of no image, in a region that stands for one: a control

T = TypeVar("T")


class SchemaError(ValueError):
    """A record, or a value, that is not as the schema has it; commands print it without a traceback."""


@dataclass(frozen=True)
class Region:
    """A box in pixels of one of the problem's images, by its number: x0 < x1, y0 < y1, finite. What models write is a
    dialect of it. A region of the image `BLANK` shows nothing but white."""

    x0: float
    y0: float
    x1: float
    y1: float
    image: int = 0

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in (self.x0, self.y0, self.x1, self.y1)):
            raise SchemaError(f"{self}: a region has finite coordinates")
        if not (self.x0 < self.x1 and self.y0 < self.y1):
            raise SchemaError(f"{self}: a region needs x0 < x1 and y0 < y1; order the corners")
        if self.image < BLANK:
            raise SchemaError(f"{self}: images are counted from 0, and {BLANK} is none")

    @property
    def area(self) -> float:
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
    """One paragraph of a solution, tag included and to the letter. A zoom step that was executed has its region; one
    that was refused, and answered, has what the policy was `told` in place of a crop."""

    kind: StepKind
    text: str
    region: Region | None = None
    told: str = ""

    @property
    def ends_turn(self) -> bool:
        """Whether a turn that shows something follows, after which the policy's next turn begins."""
        return self.region is not None or self.told != ""


@dataclass(frozen=True)
class Solution:
    """A sampled solution. `stop` says why sampling ended: `answer` is the only stop that can be a result.

    `answer` is the extracted final answer, None where there is none (a *no result*, never a wrong answer).
    `tokens` counts what the policy sampled.
    """

    problem_id: str
    steps: tuple[Step, ...]
    answer: str | None
    stop: str
    tokens: int


@dataclass(frozen=True)
class Verdict:
    """What a judge, or the truth, says of one step. `error_kind` is None on a correct step.

    A judge may say why (`reason`), and what the first wrong step should have been (`correction`). `agreement` is the
    share of its samples with a result that say the same.
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
    """A step's evidence and the target made of it.

    `mc_correct` of `mc_valid` rollouts from the prefix that ends here reached the answer; `mc_total - mc_valid` gave
    no result and count in no denominator. `judge` is None where the judge was not asked or gave no result.
    `target` in [0, 1] was made by the rule named `rule`; None means no loss here.
    """

    mc_correct: int = 0
    mc_valid: int = 0
    mc_total: int = 0
    judge: Verdict | None = None
    target: float | None = None
    error_kind: ErrorKind | None = None
    rule: str = ""


@dataclass(frozen=True)
class TreeNode:
    """A step, the index of its parent node (-1: the prompt), and its label."""

    step: Step
    parent: int
    label: StepLabel = StepLabel()


@dataclass(frozen=True)
class StepTree:
    """The search tree of one problem. Nodes are in creation order, so a parent stands before its children.

    `leaves` maps a node that ends a complete solution to that solution's answer (None: no result). `rollouts`
    (of `planned`, some of which were not needed), `requests` and `tokens` (sampled ones) are what the search cost;
    `stops` counts why its rollouts ended.
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

    def path(self, node: int) -> list[int]:
        """Indices of the nodes from the first step to `node`."""
        indices: list[int] = []
        while node >= 0:
            indices.append(node)
            node = self.nodes[node].parent
        return indices[::-1]


def _exactly(value: Any, kind: Any) -> Any:
    """The value itself; cattrs alone would make "3", 3.5 and True into the integer that a field asks for."""
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise SchemaError(f"{value!r} is no {kind.__name__}")
    return value


_converter = cattrs.Converter(forbid_extra_keys=True)
_converter.register_unstructure_hook(bytes, lambda b: base64.b64encode(b).decode("ascii"))
_converter.register_structure_hook(bytes, lambda s, _: base64.b64decode(s, validate=True))
for _kind in (int, float, str, bool):
    _converter.register_structure_hook(_kind, _exactly)


def to_json(value: Any) -> dict[str, Any]:
    """A schema dataclass as a JSON object that carries its schema version."""
    return {"schema": SCHEMA_VERSION, **_converter.unstructure(value)}


def from_json(cls: type[T], record: dict[str, Any]) -> T:
    """The dataclass that `to_json` wrote. Raises SchemaError on another schema version or on foreign fields."""
    if record.get("schema") != SCHEMA_VERSION:
        raise SchemaError(
            f"record has schema {record.get('schema')!r}, this code reads {SCHEMA_VERSION}; make the file again"
        )
    body = {key: value for key, value in record.items() if key != "schema"}
    return structured(cls, body, f"not a {cls.__name__} record")


def structured(cls: type[T], body: Any, problem: str) -> T:
    """The dataclass of a JSON object, each of whose values has its field's type. SchemaError opens with `problem`, and
    names the fields that are foreign, missing or of another type."""
    if not isinstance(body, dict):
        raise SchemaError(f"{problem}: {type(body).__name__} where an object is expected")
    try:
        return _converter.structure(body, cls)
    except cattrs.BaseValidationError as error:
        reasons = "; ".join(cattrs.transform_error(error, format_exception=_reason))
        raise SchemaError(f"{problem}: {reasons}") from error


def _reason(error: BaseException, kind: Any) -> str:
    """What is wrong with a value in its own words, where cattrs says "unknown error" or no more than the type."""
    said = format_exception(error, kind)
    return str(error) if isinstance(error, ValueError) or said.startswith("unknown error") else said


@dataclass(frozen=True)
class StepScore:
    """Probabilities of a step being correct, a perception error, a reasoning error: they add up to 1. A verdict head
    does not tell errors apart. `surprise` is, where the model reads it, the nats of the step's least likely token under
    the backbone's LM head."""

    correct: float
    perception: float | None
    reasoning: float | None
    surprise: float | None = None
