"""The commands of the pages, and how tests run them in seconds."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
Run = Callable[[Sequence[str]], str]

# The walks run the commands of the docs in seconds: at a smaller size, which the last flag gives.
SMALLER = {
    "train.builtin": ["--steps", "60"],
    "data_synth.trees": ["--problems", "12", "--unit", "12"],
    "train.prm": ["--epochs", "1"],
    "train.sft": ["--per_problem", "1", "--batch_tokens", "1024"],
}


def commands_of(page: str) -> list[str]:
    """The commands of a page's `bash` blocks; one that ends with a backslash goes on in the next line."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    commands = [line for block in blocks for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines()]
    assert all(command.startswith("python -m ") for command in commands)
    return commands


def smaller(command: str, sizes: Mapping[str, list[str]] = SMALLER) -> list[str]:
    """The words of a command after `python`, with the flags that make it small."""
    words = shlex.split(command, comments=True)[1:]
    return words + sizes.get(words[1], [])
