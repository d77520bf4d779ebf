"""Labels of zoom steps: did the crop show what the question is about, was it new, and was it of use?

Shares of areas come from the true region, where a task knows it; `used` comes from Monte Carlo values with and without
the crop. From the two shares the three classes of ViRL's credit assignment (arXiv 2511.23031) are derived; its own
thresholds are not published, and these are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vlprm.schema import Region, Step, StepLabel, StepTree
from vlprm.zoom.execute import parse_zoom
from vlprm.zoom.policy import Form

Credit = Literal["correct", "redundant", "erroneous"]
COVERED = 0.9  # of the true region that a crop has to show; what fine_print's truth asks
REPEATED = 0.5  # intersection over union with an earlier crop, above which a crop shows nothing new


@dataclass(frozen=True)
class ZoomLabel:
    """Of one zoom step. `coverage` is the share of the true region that the crop shows, `tightness` the share of the
    crop that is the true region; both are None where the truth is not known. `used` is the value with the crop less the
    value without, None without rollouts of both. A zoom that was not executed covers nothing."""

    executed: bool
    coverage: float | None = None
    tightness: float | None = None
    redundant: bool = False
    used: float | None = None

    @property
    def credit(self) -> Credit | None:
        """ViRL's class. Nothing is guessed where the truth is not known, but that a zoom without a crop is erroneous
        and a repeated one redundant."""
        if not self.executed:
            return "erroneous"
        if self.coverage is not None and self.coverage < COVERED:
            return "erroneous"
        if self.redundant:
            return "redundant"
        return None if self.coverage is None else "correct"


def zoom_label(
    step: Step,
    earlier: Sequence[Region],
    truth: Region | None,
    with_crop: StepLabel | None = None,
    without: StepLabel | None = None,
) -> ZoomLabel:
    """The label of a zoom step. `earlier` are the regions that were shown before; the counts are those of rollouts from
    the step, with its crop and with a blank in its place (`vlprm.zoom.counterfactual`)."""
    region, used = step.region, _difference(with_crop, without)
    if region is None:
        return ZoomLabel(False, None if truth is None else 0.0, used=used)
    redundant = any(overlap_over_union(region, shown) > REPEATED for shown in earlier)
    if truth is None:
        return ZoomLabel(True, redundant=redundant, used=used)
    shared = region.overlap(truth)
    return ZoomLabel(True, shared / truth.area, shared / region.area, redundant, used)


def label_zooms(steps: Sequence[Step], truths: Mapping[str, Region], form: Form = "tagged") -> dict[int, ZoomLabel]:
    """The labels of a solution's zooms, by the numbers of their steps; `truths` are regions that the task knows."""
    labels: dict[int, ZoomLabel] = {}
    shown: list[Region] = []
    for k, step in enumerate(steps):
        if step.kind == "zoom":
            labels[k] = zoom_label(step, shown, true_region(step, truths, form))
            shown += [step.region] if step.region else []
    return labels


def label_tree(tree: StepTree, truths: Mapping[str, Region]) -> dict[int, ZoomLabel]:
    """Labels of a tree's zooms by node, each after the crops of its own path. `truths` are the regions that the task
    knows, empty where it knows none. `used` is None: it needs rollouts from a blank crop."""
    labels = {}
    for n, node in enumerate(tree.nodes):
        if node.step.kind == "zoom":
            *above, step = [tree.nodes[k].step for k in tree.path(n)]
            earlier = [one.region for one in above if one.region is not None]
            labels[n] = zoom_label(step, earlier, true_region(step, truths))
    return labels


def true_region(step: Step, truths: Mapping[str, Region], form: Form = "tagged") -> Region | None:
    """The region that a zoom is after: the one of its label, else the one that it shows most of."""
    zoom = parse_zoom(step.text, form)
    if not isinstance(zoom, str) and zoom.label in truths:
        return truths[zoom.label]
    region = step.region
    if region is None:
        return next(iter(truths.values()), None)
    return max(truths.values(), key=lambda truth: region.overlap(truth) / truth.area, default=None)


def overlap_over_union(one: Region, other: Region) -> float:
    shared = one.overlap(other)
    return shared / (one.area + other.area - shared)


def _difference(with_crop: StepLabel | None, without: StepLabel | None) -> float | None:
    if not (with_crop and without and with_crop.mc_valid and without.mc_valid):
        return None
    return with_crop.mc_correct / with_crop.mc_valid - without.mc_correct / without.mc_valid
