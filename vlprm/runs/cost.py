"""What the stages of a run cost: calls of models, tokens, and seconds of devices, in `cost.json` of a run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vlprm.runs.folder import COST, json_object, write_atomically

EVERY = 60.0  # seconds after which a running stage writes its cost again, so that a kill loses little


@dataclass(frozen=True)
class Usage:
    """Answered `requests`, `failures`, and the tokens that answers read (images included) and sampled. Of `cached_of`
    tokens read, servers reported that `cached` were in their prefix cache."""

    requests: int = 0
    failures: int = 0
    read: int = 0
    sampled: int = 0
    cached: int = 0
    cached_of: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Usage)))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, one.name) - getattr(other, one.name) for one in fields(Usage)))


@dataclass(frozen=True)
class Cost:
    """The usage of a stage, and its seconds times the number of its devices, summed over all its runs."""

    usage: Usage = Usage()
    device_seconds: float = 0.0

    @property
    def cache_hits(self) -> float | None:
        """The share of the tokens read that servers had in their prefix cache; None if they did not report it."""
        return self.usage.cached / self.usage.cached_of if self.usage.cached_of else None


class Meter:
    """Adds the cost of a stage's run on a number of devices to what its earlier runs cost. Used as a context, it writes
    the cost at the end too."""

    def __init__(self, folder: Path, stage: str, devices: int) -> None:
        self._folder, self._stage, self._devices = folder, stage, devices
        self._before = cost_of(folder).get(stage, Cost())
        self._usage = Usage()
        self._started = self._saved = time.monotonic()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *error: object) -> None:
        self._save()

    def used(self, usage: Usage) -> None:
        """Tell what this run has used so far."""
        self._usage = usage
        if time.monotonic() - self._saved >= EVERY:
            self._save()

    def _save(self) -> None:
        self._saved = time.monotonic()
        seconds = self._before.device_seconds + (self._saved - self._started) * self._devices
        cost = Cost(self._before.usage + self._usage, round(seconds, 2))
        whole = {stage: asdict(one) for stage, one in {**cost_of(self._folder), self._stage: cost}.items()}
        write_atomically(self._folder / COST, json.dumps(whole, indent=2) + "\n")


def cost_of(folder: Path) -> dict[str, Cost]:
    """The cost of a run folder's stages; empty if none was recorded."""
    stored = json_object(folder / COST)
    return {stage: Cost(Usage(**cost["usage"]), cost["device_seconds"]) for stage, cost in stored.items()}


def summed(costs: Sequence[Cost]) -> Cost:
    """The cost of the shards of a stage together."""
    return Cost(sum((cost.usage for cost in costs), Usage()), sum(cost.device_seconds for cost in costs))
