"""The recipes and other files in the package that a flag can name."""

from __future__ import annotations

import difflib
from pathlib import Path

from vlprm.errors import UserError

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.parent  # the folder of vlprm and the stages
RECIPES = PACKAGE / "recipes"  # configs/ of the repository


def recipe_names() -> list[str]:
    """Names of the packaged recipes, such as demo/prm."""
    return sorted(str(path.relative_to(RECIPES).with_suffix("")) for path in RECIPES.glob("*/*.yaml"))


def recipe(name: str | Path) -> Path:
    """The recipe at this path, or the packaged recipe of this name: demo/prm, demo/prm.yaml or configs/demo/prm.yaml.
    UserError suggests the nearest recipe."""
    if (found := packaged(name)).is_file():
        return found
    plain = str(Path(name).with_suffix("")).removeprefix("configs/")
    nearest = difflib.get_close_matches(plain, recipe_names(), n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else "`vlprm recipes` lists the packaged ones"
    raise UserError(f"there is no config file or recipe {name}; {hint}")


def packaged(name: str | Path) -> Path:
    """The path itself if a file exists there; otherwise the packaged file of that name, if any."""
    path = Path(name)
    if path.is_file() or path.is_absolute() or ".." in path.parts:
        return path
    recipe = Path(*path.parts[1:]) if path.parts[:1] == ("configs",) else path
    inside = (RECIPES / recipe, RECIPES / f"{recipe}.yaml", ROOT / path)
    return next((file for file in inside if file.is_file()), path)


def purpose(path: Path) -> str:
    """The first line of a recipe's opening comment."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()
