"""The sources of verdicts that labels are made from: finished runs of data_synth.judge, persons, and a file of gold
labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_synth.annotations.journal import ANNOTATIONS, StepLabels, read_labels
from data_synth.injected.tree import INJECTED_FILE, is_injected
from data_synth.judges.config import JUDGEMENTS
from data_synth.judges.store import SUMMARY, VERDICT_COUNT
from data_synth.search.tree import read_solutions
from vlprm.errors import UserError
from vlprm.labels.fusion import INJECTED
from vlprm.labels.sources import Reliability, SourceReliability, declared
from vlprm.runs.folder import json_object, refuse_other_inputs
from vlprm.runs.index import entries
from vlprm.runs.journal import record_at, refuse_unfinished
from vlprm.schema import Problem, StepTree, Verdict, structured


@dataclass(frozen=True)
class _Judge:
    """A run of data_synth.judge: its file, what the source is, its declared rates, whether it judges a step by its
    premises alone, and where each tree's record is."""

    file: Path
    kind: str
    rates: SourceReliability | None
    local: bool
    places: Mapping[str, int]

    def verdicts(self, tree: StepTree) -> list[Verdict | None]:
        """The verdict on each node, or None."""
        record = self._record(tree.problem_id)
        if record is None:
            return [None] * len(tree.nodes)
        said = record["verdicts"]
        if len(said) != len(tree.nodes):
            raise UserError(
                f"{self.file} has {len(said)} verdicts on the {len(tree.nodes)} steps of {tree.problem_id}; judge"
                " the trees again"
            )
        return [None if v is None else structured(Verdict, v, f"a verdict on {tree.problem_id}") for v in said]

    def read(self, problem_id: str) -> list[int] | None:
        """The leaves of the solutions that it read; None if it read none of this problem."""
        record = self._record(problem_id)
        return list(record["solutions"]) if record else None

    def _record(self, problem_id: str) -> dict[str, Any] | None:
        return record_at(self.file, self.places[problem_id]) if problem_id in self.places else None


@dataclass(frozen=True)
class _Person:
    """A run of data_synth.annotate, as far as it is."""

    file: Path
    labels: StepLabels
    rates: SourceReliability | None
    kind: str = "a person"
    local: bool = False

    def verdicts(self, tree: StepTree) -> list[Verdict | None]:
        """The verdict on each node, or None."""
        said = self.labels.of(tree)
        return [said.get(node) for node in range(len(tree.nodes))]

    def read(self, problem_id: str) -> None:
        """A person labels single steps, which leaves open from which solutions training learns."""


class Judgements:
    """Verdicts of finished runs of data_synth.judge, and of persons (data_synth.annotate), by source, read one tree at
    a time. A source has the name of its folder. UserError if two have one name, a judge is not finished, one spoke
    about other trees or never, or its declared rates are not between 0 and 1."""

    def __init__(self, folders: Sequence[Path], trees: list[Path], problems: Container[str]) -> None:
        names = Counter([folder.resolve().name for folder in folders] + [INJECTED] * is_injected(trees))
        if twice := [name for name, count in names.items() if count > 1]:
            raise UserError(f"two sources are named {twice[0]!r} after their folders; rename one folder")
        opened = (
            _person(folder / ANNOTATIONS, trees, problems)
            if (folder / ANNOTATIONS).exists()
            else _judge(folder / JUDGEMENTS, trees)
            for folder in folders
        )
        self._sources = {source.file.parent.resolve().name: source for source in opened}
        self.files = [source.file for source in self._sources.values()]
        self._told = {name: (source.kind, source.rates) for name, source in self._sources.items()}
        self._share = 0.0  # share of a tree's steps that may be injected
        if INJECTED in names:
            self._share = float(json_object(trees[0].parent / INJECTED_FILE)["share"])
            self._told = {INJECTED: _of_injected(trees), **self._told}

    @property
    def rates(self) -> dict[str, SourceReliability]:
        """The sources that declare their rates."""
        return {name: rates for name, (_, rates) in self._told.items() if rates}

    @property
    def local(self) -> list[str]:
        """The sources that judge a step by its premises alone."""
        return [name for name, source in self._sources.items() if source.local]

    def described(self, quality: Reliability) -> Reliability:
        """The reliability with each source's kind, in the order of the folders; the prior for one without an
        estimate."""
        sources = {
            name: replace(quality.sources.get(name) or rates or SourceReliability(), kind=kind)
            for name, (kind, rates) in self._told.items()
        }
        return replace(quality, sources=sources)

    def of(self, tree: StepTree) -> dict[str, list[Verdict | None]]:
        """Each source's verdict on each node of a tree, or None."""
        return {name: source.verdicts(tree) for name, source in self._sources.items()}

    def solutions(self, problem: Problem, tree: StepTree) -> list[int]:
        """Leaves of the solutions that all sources read, in the first one's order; those of the first one if they share
        none; without a record, those that a judge would read. Injected steps follow the first two."""
        read = self._read(problem, tree)
        injected = [leaf for leaf, _ in tree.leaves if INJECTED in tree.nodes[leaf].label.votes]
        if len(injected) > self._share * (len(tree.nodes) - len(injected)):
            raise UserError(
                f"{tree.problem_id} has {len(injected)} injected steps among {len(tree.nodes)}, above the run's share"
                f" of {self._share}; make the run again with data_synth.inject"
            )
        return [*read[:2], *injected, *read[2:]]

    def _read(self, problem: Problem, tree: StepTree) -> list[int]:
        leaves = (source.read(tree.problem_id) for source in self._sources.values())
        read = [found for found in leaves if found is not None]
        if not read:
            return read_solutions(problem, tree)
        return [leaf for leaf in read[0] if all(leaf in other for other in read)] or read[0]


def _of_injected(trees: Sequence[Path]) -> tuple[str, SourceReliability | None]:
    path = trees[0].parent / INJECTED_FILE
    told = json_object(path)
    return str(told["maker"]), _declared(path, told["rates"], local=False)


def _person(path: Path, trees: list[Path], problems: Container[str]) -> _Person:
    refuse_other_inputs(path.parent, trees)
    labels = read_labels(path, problems)
    if not labels:
        raise UserError(f"{path} has no verdict on any step; leave this source out of judgements")
    return _Person(path, labels, _declared(path, labels.rates, local=False))


def _judge(path: Path, trees: list[Path]) -> _Judge:
    refuse_unfinished(path, "data_synth.judge")
    refuse_other_inputs(path.parent, trees)
    places: dict[str, int] = {}
    kind, rates, spoke, local = "", None, False, False
    for entry in entries(path, SUMMARY):
        places[entry.key], kind = entry.place, entry.note["judge"]
        rates, local = rates or entry.note["rates"], entry.note["local"]
        spoke = spoke or bool(entry.note[VERDICT_COUNT])
    if not spoke:
        raise UserError(f"{path} has no verdict on any step; leave this source out of judgements")
    return _Judge(path, kind, _declared(path, rates, local), local, places)


def _declared(path: Path, rates: Mapping[str, float] | None, local: bool) -> SourceReliability | None:
    if rates is None:
        return None
    try:
        return declared(**rates, local=local)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def gold_labels(path: Path | None, problems: Container[str]) -> StepLabels:
    """The gold labels in a file; without a file, none. UserError names a line that is not a label."""
    if path is None:
        return StepLabels(Path(), {})
    if not path.exists():
        raise UserError(f"there is no gold file {path}; give one, or leave out gold")
    return read_labels(path, problems)
