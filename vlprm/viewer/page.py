"""A run as one self-contained HTML page. All text of models passes through the template's escaping."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, Template, select_autoescape

from vlprm.dataset import LabelledPath
from vlprm.images import open_image
from vlprm.metrics import percent
from vlprm.schema import Problem, Region


@dataclass(frozen=True)
class StepView:
    """A step with its reward; `correct` and `error_kind` are the truth, None where it is not known."""

    text: str
    reward: float
    correct: bool | None
    error_kind: str | None
    region: Region | None


@dataclass(frozen=True)
class CandidateView:
    answer: str | None
    right: bool | None
    stop: str
    steps: list[StepView]


@dataclass(frozen=True)
class ProblemView:
    problem: Problem
    question_type: str
    candidates: list[CandidateView]


@dataclass(frozen=True)
class TreeNodeView:
    """A step of a search tree with its Monte Carlo counts, fused target, and children."""

    text: str
    correct: int
    valid: int
    target: float | None
    judge: bool | None
    children: list[TreeNodeView]


@dataclass(frozen=True)
class TreeView:
    problem: Problem
    roots: list[TreeNodeView]


def render_page(
    results: dict[str, Any], problems: Sequence[ProblemView], tree: TreeView, synthesis: dict[str, Any] | None
) -> str:
    """The page's HTML. Nothing in it is fetched from elsewhere. `synthesis` is what data_synth.report found, if it was
    run."""
    return _template("report.html").render(
        results=results,
        problems=problems,
        tree=tree,
        synthesis=synthesis,
        curve=curve_points(results["best_of_n"]),
        boxes=zoom_boxes,
    )


def render_synthesis(results: dict[str, Any]) -> str:
    """The HTML of what data_synth.report found, as a page of its own."""
    return _template("synthesis.html").render(synthesis=results)


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(["html"]), trim_blocks=True
    )
    environment.filters |= {"percent": percent, "colour": reward_colour, "data_url": data_url}
    return environment.get_template(name)


def tree_view(paths: Sequence[LabelledPath]) -> TreeView:
    """The search tree that labelled paths of one problem make."""
    children: dict[int, list[int]] = {}
    facts: dict[int, Any] = {}
    for path in paths:
        for parent, node, step, label in zip((-1, *path.nodes), path.nodes, path.steps, path.labels, strict=False):
            if node not in facts:
                facts[node] = (step, label)
                children.setdefault(parent, []).append(node)

    def view(node: int) -> TreeNodeView:
        step, label = facts[node]
        judge = label.judge.correct if label.judge else None
        below = [view(child) for child in children.get(node, [])]
        return TreeNodeView(step.text, label.mc_correct, label.mc_valid, label.target, judge, below)

    return TreeView(paths[0].problem, [view(node) for node in children.get(-1, [])])


def data_url(data: bytes) -> str:
    """An image file's bytes as a URL; the type is read from the bytes."""
    kind = "jpeg" if data.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def reward_colour(reward: float | None) -> str:
    """Red through yellow to green; grey where there is none. Lightness is constant, so that text stays readable."""
    return "hsl(0 0% 88%)" if reward is None else f"hsl({round(120 * reward)} 70% 82%)"


def curve_points(
    best_of_n: dict[str, float], width: int = 320, height: int = 160
) -> list[tuple[float, float, str, float]]:
    """(x, y, n, accuracy) of the best-of-n curve in a drawing of that size: n on a log scale, accuracy from 0 to 1."""
    last = max(len(best_of_n) - 1, 1)
    return [
        (40 + (width - 60) * i / last, height - 20 - (height - 40) * a, n, a)
        for i, (n, a) in enumerate(best_of_n.items())
    ]


def zoom_boxes(view: ProblemView) -> list[tuple[float, float, float, float]]:
    """Left, top, width and height of the zoomed regions, in per cent of the first image."""
    width, height = open_image(view.problem.images[0]).size
    regions = {step.region for c in view.candidates for step in c.steps if step.region}
    boxes = sorted((r.x0, r.y0, r.x1 - r.x0, r.y1 - r.y0) for r in regions)
    return [(100 * x / width, 100 * y / height, 100 * w / width, 100 * h / height) for x, y, w, h in boxes]
