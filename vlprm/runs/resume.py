"""A folder continues a run with the same settings, apart from those that do not change results."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vlprm.errors import UserError

# Where and how fast a run works. Another address, device or batch size may be given when a run is continued.
FREE = frozenset({
    "run", "device", "unit", "in_flight", "ray", "workers", "concurrency", "timeout", "retries", "patience",
    "gpus", "api_key_env", "report_to", "memory_tokens",
})  # fmt: skip
LONGEST = 60  # characters of a value in a message


def result_settings(settings: Any, fixed: Container[str] = (), free: Container[str] = ()) -> Any:
    """Settings without those that do not change results, at every level. Of server addresses, only whether there are
    any is kept. `fixed` are free settings that change the results of this stage, `free` further ones that do not."""
    if not isinstance(settings, Mapping):
        return settings
    kept = {
        name: result_settings(value, fixed, free)
        for name, value in settings.items()
        if name in fixed or not (name in FREE or name in free)
    }
    return {**kept, "base_urls": "given" if kept["base_urls"] else "none"} if "base_urls" in kept else kept


def refuse_other_settings(
    folder: Path, old: str, new: str, fixed: Container[str] = (), free: Container[str] = ()
) -> None:
    """UserError if the run in a folder, given as the text of its config, has other settings; it names them."""
    before, now = (result_settings(yaml.safe_load(text), fixed, free) or {} for text in (old, new))
    if differences := _differences(before, now):
        raise UserError(
            f"{folder} holds a run with another config ({'; '.join(differences)}); choose another folder or remove it"
        )


def refuse_changed_inputs(folder: Path, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """UserError if the run in a folder was made from other files, given as fingerprints by path."""
    if sorted(old.values()) != sorted(new.values()):
        changed = [path for path, fingerprint in new.items() if fingerprint not in old.values()] or list(old)
        raise UserError(
            f"{folder} was made from other inputs than {', '.join(changed)} as it is now; choose another folder or"
            " remove it"
        )


def _differences(old: Any, new: Any, name: str = "") -> Sequence[str]:
    """The settings that differ, each with both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = dict.fromkeys([*old, *new])
        inner = [(old.get(one), new.get(one), f"{name}.{one}".lstrip(".")) for one in names]
        return [difference for pair in inner for difference in _differences(*pair)]
    return [] if old == new else [f"{name} is {_short(old)} there and {_short(new)} here"]


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= LONGEST else f"{said[:LONGEST]}..."
