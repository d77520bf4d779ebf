"""Labels of zoom steps: did the crop show what the question is about, was it new, and was it useful?

The area shares need the true region, which only some tasks know; `used` needs Monte Carlo values with and without the
crop. The shares give the three classes of ViRL's credit assignment (arXiv 2511.23031). ViRL's thresholds are not
published; these are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from vlprm.schema import Region, Step, StepLabel, StepTree
from vlprm.zoom.execute import parse_zoom
from vlprm.zoom.policy import Form

Credit = Literal["correct", "redundant", "erroneous"]
COVERED = 0.9  # share of the true region that a crop must show, as in the task fine_print
REPEATED = 0.5  # a crop is redundant above this intersection over union with an earlier one


@dataclass(frozen=True)
class ZoomLabel:
    """The label of one zoom step. `coverage`: share of the true region that the crop shows; `tightness`: share of the
    crop that is the true region; both None if the truth is unknown. `used`: value with the crop minus value without it;
    None without rollouts of both. A zoom that was not executed covers nothing."""

    executed: bool
    coverage: float | None = None
    tightness: float | None = None
    redundant: bool = False
    used: float | None = None

    @property
    def credit(self) -> Credit | None:
        """ViRL's class; None if it is unknown. Without the truth, only a zoom without a crop (erroneous) and a repeated
        one (redundant) are known."""
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
    """The label of a zoom step. `earlier` are the regions shown before; `with_crop` and `without` hold the counts of
    rollouts from the step with its crop and with a blank instead (`vlprm.zoom.counterfactual`)."""
    region, used = step.region, _difference(with_crop, without)
    if region is None:
        return ZoomLabel(False, None if truth is None else 0.0, used=used)
    redundant = any(overlap_over_union(region, shown) > REPEATED for shown in earlier)
    if truth is None:
        return ZoomLabel(True, redundant=redundant, used=used)
    shared = region.overlap(truth)
    return ZoomLabel(True, shared / truth.area, shared / region.area, redundant, used)


def label_zooms(steps: Sequence[Step], truths: Mapping[str, Region]) -> dict[int, ZoomLabel]:
    """The labels of a solution's zooms by step index; `truths` are the regions that the task knows, by name."""
    labels: dict[int, ZoomLabel] = {}
    shown: list[Region] = []
    for k, step in enumerate(steps):
        if step.kind == "zoom":
            labels[k] = zoom_label(step, shown, true_region(step, truths))
            shown += [step.region] if step.region else []
    return labels


def label_tree(tree: StepTree, truths: Mapping[str, Region]) -> dict[int, ZoomLabel]:
    """Labels of a tree's zooms by node, each after the crops of its own path. `truths` are the regions that the task
    knows; it may be empty. `used` is None, because it needs rollouts from a blank crop."""
    labels = {}
    for n, node in enumerate(tree.nodes):
        if node.step.kind == "zoom":
            *above, step = [tree.nodes[k].step for k in tree.path(n)]
            earlier = [one.region for one in above if one.region is not None]
            labels[n] = zoom_label(step, earlier, true_region(step, truths))
    return labels


def true_region(step: Step, truths: Mapping[str, Region]) -> Region | None:
    """The region that a zoom, in whichever form, is meant to show: the one that its label names, or the one that it
    shows most of."""
    for form in get_args(Form):
        zoom = parse_zoom(step.text, form)
        if not isinstance(zoom, str) and zoom.label in truths:
            return truths[zoom.label]
    region = step.region
    if region is None:
        return next(iter(truths.values()), None)
    return max(truths.values(), key=lambda truth: region.overlap(truth) / truth.area, default=None)


def overlap_over_union(one: Region, other: Region) -> float:
    """Intersection over union of two regions."""
    shared = one.overlap(other)
    return shared / (one.area + other.area - shared)


def _difference(with_crop: StepLabel | None, without: StepLabel | None) -> float | None:
    if not (with_crop and without and with_crop.mc_valid and without.mc_valid):
        return None
    return with_crop.mc_correct / with_crop.mc_valid - without.mc_correct / without.mc_valid
