"""The packaged benchmarks: real items, and published outputs with the scores that they must get."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

DATA = Path(os.environ.get("VLPRM_DATA", Path(__file__).parents[2] / "shared" / "data"))
absent = pytest.mark.skipif(
    not DATA.is_dir() and not os.environ.get("CI"),
    reason=f"{DATA} is not there; set VLPRM_DATA to the folder of packaged benchmarks",
)


def expected(benchmark: str) -> dict[str, Any]:
    """The scores of a benchmark's packaged outputs; empty if none are packaged."""
    path = DATA / benchmark / "expected.json"
    whole = json.loads(path.read_text()) if path.exists() else {}
    return {name: value for name, value in whole.items() if not name.startswith("_")}
