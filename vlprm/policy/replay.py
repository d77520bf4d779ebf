"""A policy whose answers are stored on disk until their problem is done, so that nothing is paid for twice.

The coroutine of a problem is deterministic given its answers. After a kill it restarts from the beginning, gets the
stored answers, and asks the policy only for the rest.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Container, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from vlprm.policy import Continuation, Policy, Request
from vlprm.runs.folder import write_atomically
from vlprm.runs.journal import append_line, read_records
from vlprm.runs.window import Stopped
from vlprm.schema import Problem, Region
from vlprm.zoom.boxes import Size

ANSWERS = "answers.jsonl"


class ReplayPolicy:
    """Replays the unused answers of the last run and records the new ones.

    `done` are the problems whose answers are no longer needed; they are removed when the file is opened and by
    `forget`. Failures are not kept, so they are asked again.
    """

    def __init__(self, engine: Policy, path: Path, done: Container[str], stopping: asyncio.Event) -> None:
        self.engine, self.path, self.stopping = engine, path, stopping
        self.dialect, self.zoom = engine.dialect, engine.zoom
        kept = self.forget(done)
        self._answers = {record["key"]: [_told(c) for c in record["answer"]] for record in kept}

    def forget(self, done: Container[str]) -> list[dict[str, Any]]:
        """Remove the answers of these problems from the file, and return the remaining records. An empty file is
        deleted."""
        kept = [record for record in read_records(self.path) if record["problem"] not in done]
        if kept:
            write_atomically(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        else:
            self.path.unlink(missing_ok=True)
        return kept

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
            append_line(self.path, record)
        return answer


def _told(kept: Sequence[Any]) -> Continuation:
    text, tokens, ended, failure, goes_on, ids, read, logprobs = kept
    return Continuation(text, tokens, ended, failure, goes_on, tuple(ids), read, tuple(logprobs))
