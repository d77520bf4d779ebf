"""Wrong steps by a drawn family's own writer: one claim of a right step takes a plausible confusion's value."""

from __future__ import annotations

from collections.abc import Collection

from data_synth.injected.tree import Injected
from vlprm.schema import ErrorKind, Problem, StepTree
from vlprm.steps import parse_step
from vlprm.tasks.slips import slipped
from vlprm.tasks.synthetic import Scene, SyntheticFamily, truthful


def slips_of_tree(
    family: SyntheticFamily, problem: Problem, tree: StepTree, kinds: Collection[ErrorKind]
) -> list[Injected]:
    """All wrong steps that can take the place of a right step of the tree: it and all steps before it are true, and are
    written as the family writes them."""
    slips = _slips(family, problem.meta["scene"])
    siblings: dict[int, set[str]] = {}
    for sibling in tree.nodes:
        siblings.setdefault(sibling.parent, set()).add(sibling.step.text.strip())
    found: dict[tuple[int, str], Injected] = {}
    for leaf, _ in tree.leaves:
        path = tree.path(leaf)
        steps = [tree.nodes[node].step for node in path]
        for place, verdict in enumerate(family.verdicts(problem, steps)):
            if verdict is None or not verdict.correct:
                break
            node = path[place]
            for text, harmless in slips.get(steps[place].text.strip(), ()):
                wrong = parse_step(text)
                truth = family.verdicts(problem, [*steps[:place], wrong])[-1]
                if truth and truth.error_kind in kinds and text not in siblings[tree.nodes[node].parent]:
                    assert truth.error_kind is not None
                    found[node, text] = Injected(node, wrong, truth.error_kind, harmless)
    return list(found.values())


def _slips(family: SyntheticFamily, scene: Scene) -> dict[str, list[tuple[str, bool]]]:
    """By right step: wrong steps in its place, each with one slip, and whether the answer stays."""
    right = family.solve(scene, truthful)
    slips: dict[str, list[tuple[str, bool]]] = {}
    for texts in slipped(family, scene):
        place = next((i for i, (a, b) in enumerate(zip(right, texts, strict=False)) if a != b), None)
        if place is not None and not right[place].startswith("[answer]"):
            slips.setdefault(right[place], []).append((texts[place], texts[-1] == right[-1]))
    return slips
