"""A policy whose answers are stored on disk until their problem is done, so that nothing is paid for twice.

The coroutine of a problem is deterministic given its answers. After a kill it restarts from the beginning, gets the
stored answers, and asks the policy only for the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from vlprm.policy import Continuation, Policy, Request
from vlprm.runs.folder import writing
from vlprm.runs.index import parsed_record
from vlprm.runs.journal import append_line, placed_lines
from vlprm.runs.window import Stopped
from vlprm.schema import Problem, Region
from vlprm.zoom.boxes import Size

ANSWERS = "answers.jsonl"
WASTE = 1 << 26  # bytes of unneeded answers that are left in the file


class ReplayPolicy:
    """Replays the unused answers of the last run and records the new ones.

    The answers of `done` problems are not replayed. `forget` adds a problem to these; the file
    is written anew without them whenever they fill most of it, so that it stays as small as the problems in flight.
    Failures are not kept, so they are asked again.
    """

    def __init__(self, engine: Policy, path: Path, done: Container[str], stopping: asyncio.Event) -> None:
        self.engine, self.path, self.stopping = engine, path, stopping
        self.dialect, self.zoom = engine.dialect, engine.zoom
        self._answers: dict[str, list[Continuation]] = {}
        self._places: dict[str, list[tuple[int, int]]] = {}  # start and length of each problem's lines
        for place, line in placed_lines(path) if path.exists() else ():
            record = parsed_record(line, f"{path}, byte {place}") if line.endswith(b"\n") else {}
            if record and record["problem"] not in done:
                self._answers[record["key"]] = [_told(c) for c in record["answer"]]
                self._places.setdefault(record["problem"], []).append((place, len(line)))
        self.compact()

    def forget(self, problem_id: str) -> None:
        """The answers of this problem are no longer needed."""
        self._unneeded += sum(length for _, length in self._places.pop(problem_id, ()))
        if self._unneeded > max(WASTE, self._size // 2):
            self.compact()

    def compact(self) -> None:
        """Write the file anew without what is no longer needed. An empty file is deleted."""
        self._size = self._unneeded = 0
        if not self._places:
            self.path.unlink(missing_ok=True)
            return
        draft = self.path.with_name(f"{self.path.name}.draft")
        with writing(self.path), self.path.open("rb") as old, draft.open("wb") as new:
            for lines in self._places.values():
                for at, (place, length) in enumerate(lines):
                    old.seek(place)
                    new.write(old.read(length))
                    lines[at] = (self._size, length)
                    self._size += length
        draft.replace(self.path)

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> Size:
        """See `Policy.seen_size`."""
        return self.engine.seen_size(problem, shown)

    def crop_tokens(self, problem: Problem, region: Region) -> int:
        """See `Policy.crop_tokens`."""
        return self.engine.crop_tokens(problem, region)

    async def sample(self, request: Request) -> list[Continuation]:
        """Return the stored answer, or ask for a new one. Raises Stopped if the run is stopping and no answer is
        stored."""
        kept = self._answers.pop(request.key, [])
        if len(kept) == request.n:  # otherwise an earlier request failed in the last run and now has another answer
            return kept
        if self.stopping.is_set():
            raise Stopped
        answer = await self.engine.sample(request)
        if not any(continuation.failure for continuation in answer):
            record = {"key": request.key, "problem": request.problem.id, "answer": [astuple(c) for c in answer]}
            length = append_line(self.path, record)
            self._places.setdefault(request.problem.id, []).append((self._size, length))
            self._size += length
        return answer


def _told(kept: Sequence[Any]) -> Continuation:
    text, tokens, ended, failure, goes_on, ids, read, logprobs, probability = kept
    return Continuation(text, tokens, ended, failure, goes_on, tuple(ids), read, tuple(logprobs), probability)
