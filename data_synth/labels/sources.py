"""The sources of verdicts that labels are made from: finished runs of data_synth.judge, and a file of gold labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_synth.injected.tree import INJECTED_FILE, is_injected
from data_synth.judges.config import JUDGEMENTS
from data_synth.judges.store import SUMMARY
from data_synth.judges.store import VERDICTS as SPOKEN
from data_synth.search.tree import read_solutions
from vlprm.errors import UserError
from vlprm.labels.fusion import INJECTED
from vlprm.labels.sources import VERDICTS, Reliability, SourceReliability, declared
from vlprm.runs.folder import json_object, refuse_other_inputs
from vlprm.runs.index import entries
from vlprm.runs.journal import read_records, record_at, refuse_unfinished
from vlprm.schema import Problem, StepTree, Verdict, structured


@dataclass(frozen=True)
class _Source:
    """A run of data_synth.judge: its file, what the source is, its declared rates, whether it judges a step by its
    premises alone, and where each tree's record is."""

    file: Path
    kind: str
    rates: SourceReliability | None
    local: bool
    places: Mapping[str, int]

    def record(self, problem_id: str) -> dict[str, Any] | None:
        return record_at(self.file, self.places[problem_id]) if problem_id in self.places else None


class Judgements:
    """Verdicts of finished runs of data_synth.judge, by source, read one tree at a time. A source has the name of its
    folder. UserError if two have one name, a run is not finished, judged other trees or never spoke, or its declared
    rates are not between 0 and 1."""

    def __init__(self, folders: Sequence[Path], trees: list[Path]) -> None:
        names = Counter([folder.resolve().name for folder in folders] + [INJECTED] * is_injected(trees))
        if twice := [name for name, count in names.items() if count > 1]:
            raise UserError(f"two sources are named {twice[0]!r} after their folders; rename one folder")
        self.files = [folder / JUDGEMENTS for folder in folders]
        self._sources = {path.parent.resolve().name: _opened(path, trees) for path in self.files}
        self._told = {name: (source.kind, source.rates) for name, source in self._sources.items()}
        self._share = 0.0  # of a tree's steps that may be injected
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
        return {name: self._verdicts(source, tree) for name, source in self._sources.items()}

    def _verdicts(self, source: _Source, tree: StepTree) -> list[Verdict | None]:
        record = source.record(tree.problem_id)
        if record is None:
            return [None] * len(tree.nodes)
        said = record["verdicts"]
        if len(said) != len(tree.nodes):
            raise UserError(
                f"{source.file} has {len(said)} verdicts on the {len(tree.nodes)} steps of {tree.problem_id}; judge"
                " the trees again"
            )
        return [None if v is None else structured(Verdict, v, f"a verdict on {tree.problem_id}") for v in said]

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
        records = (source.record(tree.problem_id) for source in self._sources.values())
        read = [list(record["solutions"]) for record in records if record]
        if not read:
            return read_solutions(problem, tree)
        return [leaf for leaf in read[0] if all(leaf in other for other in read)] or read[0]


def _of_injected(trees: Sequence[Path]) -> tuple[str, SourceReliability | None]:
    path = trees[0].parent / INJECTED_FILE
    told = json_object(path)
    return str(told["maker"]), _declared(path, told["rates"], local=False)


def _opened(path: Path, trees: list[Path]) -> _Source:
    refuse_unfinished(path, "data_synth.judge")
    refuse_other_inputs(path.parent, trees)
    places: dict[str, int] = {}
    kind, rates, spoke, local = "", None, False, False
    for entry in entries(path, SUMMARY):
        places[entry.key], kind = entry.place, entry.note["judge"]
        rates, local = rates or entry.note["rates"], entry.note["local"]
        spoke = spoke or bool(entry.note[SPOKEN])
    if not spoke:
        raise UserError(f"{path} has no verdict on any step; leave this source out of judgements")
    return _Source(path, kind, _declared(path, rates, local), local, places)


def _declared(path: Path, rates: Mapping[str, float] | None, local: bool) -> SourceReliability | None:
    if rates is None:
        return None
    try:
        return declared(**rates, local=local)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


class Gold:
    """Gold labels by problem and step. UserError names a line that is not a gold label."""

    def __init__(self, path: Path | None, problems: Sequence[str]) -> None:
        self._path = path
        self._labels: dict[str, dict[int, Verdict]] = {}
        known = set(problems)
        if path is not None and not path.exists():
            raise UserError(f"there is no gold file {path}; give one, or leave out gold")
        for number, record in enumerate(read_records(path) if path else (), 1):
            key, step, verdict = (record.get(name) for name in ("key", "step", "verdict"))
            if verdict not in VERDICTS or type(step) is not int:
                raise UserError(
                    f"{path}, line {number} is not a gold label; write key, step (an index) and verdict (one of"
                    f" {', '.join(VERDICTS)})"
                )
            if key not in known:
                raise UserError(f"{path}, line {number}: the trees have no problem {key!r}; remove the line")
            kind = None if verdict == "correct" else verdict
            self._labels.setdefault(key, {})[step] = Verdict(kind is None, kind)

    def of(self, tree: StepTree) -> dict[int, Verdict]:
        """The gold labels of a tree's nodes. UserError if a step does not exist."""
        labels = self._labels.get(tree.problem_id, {})
        if unknown := [step for step in labels if not 0 <= step < len(tree.nodes)]:
            raise UserError(
                f"{self._path} has a gold label for step {unknown[0]} of {tree.problem_id}, which has"
                f" {len(tree.nodes)} steps, from 0; correct it"
            )
        return labels

    def __bool__(self) -> bool:
        """Whether there are gold labels."""
        return bool(self._labels)
