"""The result of a benchmark: one JSON file in runs/bench."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from vlprm.runs.folder import environment, write_atomically

FOLDER = Path("runs/bench")


def write_result(name: str, rows: list[dict[str, Any]], headline: dict[str, tuple[float, float]]) -> None:
    """Write the rows. `headline` maps each key to the measured value and its goal."""
    result = {
        "name": name,
        "device": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "versions": environment(seed=0)["packages"],
        "rows": rows,
        "headline": {key: {"value": value, "goal": goal} for key, (value, goal) in headline.items()},
    }
    path = FOLDER / f"{name}.json"
    write_atomically(path, json.dumps(result, indent=2) + "\n")
    for key, (value, goal) in headline.items():
        print(f"{name}: {key} {value:.3g} (goal {goal:g})")
    print(f"in {path}")
