"""Solutions of drawn problems with one slip: each claim in turn takes the value of a plausible confusion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vlprm.schema import ErrorKind
from vlprm.tasks.synthetic import Scene, SyntheticFamily, V


def slipped(family: SyntheticFamily, scene: Scene) -> Iterator[list[str]]:
    """The texts of the steps of each solution with one slip: for each claim, each of its plausible confusions. Later
    steps follow from the slip."""
    call = 0
    while True:
        choices, which = 1, 0
        while which < choices:
            made = _OneSlip(call, which)
            texts = family.solve(scene, made)
            if made.calls <= call:
                return
            choices = made.choices
            if choices:
                yield texts
            which += 1
        call += 1


class _OneSlip:
    """Tells the truth but for one claim."""

    def __init__(self, call: int, which: int) -> None:
        self.call, self.which, self.calls, self.choices = call, which, 0, 0

    def __call__(self, kind: ErrorKind, concept: str, truth: V, near: Sequence[V]) -> V:
        slips = self.calls == self.call
        self.calls += 1
        if not slips:
            return truth
        self.choices = len(near)
        return near[self.which] if near else truth
