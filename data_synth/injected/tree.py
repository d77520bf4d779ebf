"""How a tree holds injected steps: each is a last step without an answer, with the vote of the source `injected`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vlprm.labels.fusion import INJECTED
from vlprm.schema import ErrorKind, Step, StepLabel, StepTree, TreeNode, Verdict

INJECTED_FILE = "injected.json"  # in the run folder: who made the steps, and the declared rates if the truth is known


@dataclass(frozen=True)
class Injected:
    """A wrong step in the place of the right step `node`. `harmless`: a truthful solution that goes on from it still
    reaches the answer; None if nobody knows."""

    node: int
    step: Step
    kind: ErrorKind
    harmless: bool | None = None


def is_injected(trees: Sequence[Path]) -> bool:
    """Whether the files with trees are of a run of data_synth.inject."""
    return (trees[0].parent / INJECTED_FILE).exists()


def chosen(found: Sequence[Injected], most: int, rng: random.Random) -> list[Injected]:
    """At most `most` of the injected steps, at random, and one in the place of each right step."""
    of_node: dict[int, list[Injected]] = {}
    for one in found:
        of_node.setdefault(one.node, []).append(one)
    nodes = rng.sample(sorted(of_node), min(most, len(of_node)))
    return [rng.choice(of_node[node]) for node in sorted(nodes)]


def with_injected(tree: StepTree, injected: Sequence[Injected]) -> StepTree:
    """The tree with the injected steps. The nodes that it had keep their indices and labels."""
    nodes, leaves = list(tree.nodes), list(tree.leaves)
    for one in injected:
        right = tree.nodes[one.node]
        said = {True: "; the answer stays", False: "; the answer is lost", None: ""}[one.harmless]
        vote = Verdict(False, one.kind, f"injected{said}", right.step.text.strip())
        leaves.append((len(nodes), None))
        nodes.append(TreeNode(one.step, right.parent, StepLabel(votes={INJECTED: vote})))
    return replace(tree, nodes=tuple(nodes), leaves=tuple(leaves))
