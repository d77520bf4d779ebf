r"""Process reward models for vision-language reasoning. These names are loaded on first use:

import vlprm

model = vlprm.load_reward_model("runs/demo/prm")
problem = vlprm.example_problem()
steps = vlprm.split_steps("[perception] row 1: red none blue\n\n[answer] 1")
print(vlprm.score(model, [(problem, steps)]))
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "LocalPolicy": "vlprm.policy.local",
    "LocalScorer": "vlprm.scoring.local",
    "ModelConfig": "vlprm.serving.config",
    "Problem": "vlprm.schema",
    "SearchConfig": "vlprm.search.attempt",
    "Solution": "vlprm.schema",
    "Step": "vlprm.schema",
    "example_problem": "vlprm.tasks",
    "load_policy": "vlprm.model.loading",
    "load_reward_model": "vlprm.model.reward_loading",
    "open_policy": "vlprm.policy.open",
    "rank": "vlprm.scoring.rank",
    "score": "vlprm.scoring.tree",
    "score_whole": "vlprm.scoring.tree",
    "solve": "vlprm.search",
    "split_steps": "vlprm.steps",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module 'vlprm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """The version of the installed package, or of the source in a clone that is not installed."""
    import tomllib
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    try:
        return version("vlprm")
    except PackageNotFoundError:
        source = Path(__file__).parents[1] / "pyproject.toml"
        return str(tomllib.loads(source.read_text(encoding="utf-8"))["project"]["version"])
