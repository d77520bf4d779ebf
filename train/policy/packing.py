"""Several paths of tokens after one prompt as one packed row, in which equal beginnings are stored once.

Paths are merged by their ids, never by their text: what is trained is what was sampled.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from train.policy.trajectories import Part, Path
from vlprm.data.prefix_tree import prefix_tree
from vlprm.errors import UserError
from vlprm.model.inputs import InputBuilder
from vlprm.model.packing import Node, PackedRow, Segment, depth_first, lay_out
from vlprm.schema import Problem


@dataclass(frozen=True)
class PathsRow:
    """A packed row, and for each of its paths the places in the row of its tokens after the prompt."""

    row: PackedRow
    places: tuple[tuple[int, ...], ...]


def paths_row(problem: Problem, paths: Sequence[Path], inputs: InputBuilder) -> PathsRow:
    """The packed row of a problem and paths. UserError if there are several and the backbone cannot read branches."""
    if inputs.family.cannot_pack and len(paths) > 1:
        raise UserError(f"this backbone cannot read a tree in one sequence: {inputs.family.cannot_pack}; use paths")
    units = [[unit for part in path.parts for unit in _units(part)] for path in paths]
    segment_of = {key: segment for of_path in units for key, segment in of_path}
    of_paths, parents, keys = prefix_tree([[key for key, _ in of_path] for of_path in units])
    chains = _chains(parents)
    nodes, chain_of = [Node(inputs.prompt(problem), -1)], {-1: 0}
    for number, chain in enumerate(chains, 1):
        nodes.append(Node(_joined([segment_of[keys[unit]] for unit in chain]), chain_of[parents[chain[0]]]))
        chain_of |= dict.fromkeys(chain, number)
    start, starts = 0, {}
    for k in depth_first(nodes):
        starts[k], start = start, start + len(nodes[k].segment.ids)
    place: dict[int, range] = {}
    for number, chain in enumerate(chains, 1):
        at = starts[number]
        for unit in chain:
            place[unit] = range(at, at := at + len(segment_of[keys[unit]].ids))
    places = tuple(tuple(p for unit in of_path for p in place[unit]) for of_path in of_paths)
    return PathsRow(lay_out(nodes, inputs.positions), places)


def _units(part: Part) -> list[tuple[Hashable, Segment]]:
    """What is merged or not as a whole: single ids, or a segment with an image."""
    if part.segment.images:
        return [((part.key, part.segment.ids), part.segment)]
    return [(token, Segment((token,), (False,))) for token in part.segment.ids]


def _chains(parents: Sequence[int]) -> list[list[int]]:
    """The nodes in runs without branches; a run comes after the one that it follows."""
    children = [0] * len(parents)
    for parent in parents:
        if parent >= 0:
            children[parent] += 1
    run_of: dict[int, list[int]] = {}
    runs: list[list[int]] = []
    for unit, parent in enumerate(parents):
        if parent >= 0 and children[parent] == 1:
            run_of[unit] = run_of[parent]
        else:
            runs.append([])
            run_of[unit] = runs[-1]
        run_of[unit].append(unit)
    return runs


def _joined(segments: Sequence[Segment]) -> Segment:
    return Segment(
        tuple(i for s in segments for i in s.ids),
        tuple(m for s in segments for m in s.image_mask),
        tuple(image for s in segments for image in s.images),
    )
