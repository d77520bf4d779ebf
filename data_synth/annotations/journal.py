"""The journal of a person's labels: one line per answer, of which the last one about a step counts.

    {"key": PROBLEM_ID, "step": INDEX, "verdict": "correct", "reason": "", "time": "2026-11-28T12:00:00+00:00"}

`step` is the index of a step of the problem's search tree; `verdict` is `correct`, a kind of error, or `unsure`, which
takes an earlier verdict back. A file of gold labels has the same lines; it needs the first three fields alone.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlprm.errors import UserError
from vlprm.labels.sources import UNSURE, VERDICTS
from vlprm.runs.folder import writing
from vlprm.runs.journal import read_records
from vlprm.schema import StepTree, Verdict

ANNOTATIONS = "annotations.jsonl"
Rates = Mapping[str, float]


@dataclass(frozen=True)
class Said:
    """What a person said about a step: a verdict (one of VERDICTS, or UNSURE), and why."""

    verdict: str
    reason: str = ""

    @property
    def vote(self) -> Verdict | None:
        """As a verdict; None if the person is not sure."""
        if self.verdict == UNSURE:
            return None
        correct = self.verdict == "correct"
        return Verdict(correct, None if correct else self.verdict, self.reason)  # type: ignore[arg-type]


@dataclass(frozen=True)
class StepLabels:
    """Labels of steps by problem and step, from the file `path`; the rates that the person declared."""

    path: Path
    said: Mapping[str, Mapping[int, Said]]
    rates: Rates | None = None

    def of(self, tree: StepTree) -> dict[int, Verdict]:
        """The verdicts on a tree's nodes. UserError if a step does not exist."""
        said = self.said.get(tree.problem_id, {})
        if unknown := [step for step in said if not 0 <= step < len(tree.nodes)]:
            raise UserError(
                f"{self.path} has a label of step {unknown[0]} of {tree.problem_id}, which has {len(tree.nodes)} steps,"
                " from 0; correct it"
            )
        return {step: vote for step, one in said.items() if (vote := one.vote)}

    def __bool__(self) -> bool:
        """Whether any step has a verdict."""
        return any(one.vote for steps in self.said.values() for one in steps.values())


def read_labels(path: Path, problems: Container[str]) -> StepLabels:
    """The labels in a file. UserError names a line that is none, or one about another problem."""
    said: dict[str, dict[int, Said]] = {}
    rates = None
    for number, record in enumerate(read_records(path), 1):
        key, step, verdict, reason = (record.get(name) for name in ("key", "step", "verdict", "reason"))
        if verdict not in (*VERDICTS, UNSURE) or type(step) is not int:
            raise UserError(
                f"{path}, line {number} is not a label of a step; write key, step (an index) and verdict (one of"
                f" {', '.join((*VERDICTS, UNSURE))})"
            )
        if key not in problems:
            raise UserError(f"{path}, line {number}: the trees have no problem {key!r}; remove the line")
        said.setdefault(str(key), {})[step] = Said(str(verdict), str(reason or ""))
        rates = record.get("rates") or rates
    return StepLabels(path, said, rates)


class AnnotationJournal:
    """A journal that is open for one person's answers. UserError if another process has it open, or a line is not an
    answer. A last line that a kill cut short is dropped."""

    def __init__(self, path: Path, problems: Container[str], rates: Rates | None) -> None:
        self._path, self._rates = path, rates
        with writing(path):
            self._file = path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise UserError(f"{path} is open in another process; give each person a --run of their own") from error
        whole = path.read_bytes()
        self._file.truncate(whole.rfind(b"\n") + 1)
        self.said = {key: dict(steps) for key, steps in read_labels(path, problems).said.items()}

    def of(self, problem_id: str) -> Mapping[int, Said]:
        """What was said about a problem's steps."""
        return self.said.get(problem_id, {})

    def add(self, problem_id: str, step: int, said: Said) -> None:
        """Write an answer to disk."""
        record: dict[str, Any] = {"key": problem_id, "step": step, "verdict": said.verdict, "reason": said.reason}
        record["time"] = datetime.now(UTC).isoformat(timespec="seconds")
        if self._rates:
            record["rates"] = self._rates
        with writing(self._path):
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self.said.setdefault(problem_id, {})[step] = said

    def close(self) -> None:
        """Close the file, which lets another process open it."""
        self._file.close()
