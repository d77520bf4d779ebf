"""Find a published prompt in the files of a checkpoint folder, by its hash. Python files are parsed, never run."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from vlprm.errors import UserError
from vlprm.published.protocol import PublishedText


def published_text(folder: Path, text: PublishedText) -> str:
    """The published text, from a `.py` or `.txt` file in the folder: the checkpoint's own, or one that the user put
    there. UserError if no file has this text."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".py", ".txt") and path.is_file())
    for path in files:
        for found in _texts(path):
            for form in (found, found.removesuffix("\n"), found.strip()):
                if hashlib.sha256(form.encode()).hexdigest() == text.sha256:
                    return form
    source = Path(text.file).name
    where = f"{text.file} of {text.repository} at {text.commit[:12]}"
    if any(path.name == source for path in files):
        raise UserError(
            f"{folder / source} has another {text.name} than {where} (SHA-256 {text.sha256[:12]}...); copy that file"
            " into the folder"
        )
    raise UserError(f"{folder} has no file with {text.name}, the prompt of this model; copy {where} into the folder")


def _texts(path: Path) -> Iterator[str]:
    """The texts of a file: all of a text file, the string constants of a Python file."""
    try:
        written = path.read_text(encoding="utf-8")
        tree = ast.parse(written) if path.suffix == ".py" else None
    except (UnicodeDecodeError, SyntaxError, ValueError):
        return
    if tree is None:
        yield written
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
