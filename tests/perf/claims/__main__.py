"""Measure the claims of the field in the built-in world, and write docs/claims.md.

    make demo && make claims
    python -m tests.perf.claims --render        # only write the document again, from the stored records

Runs each bench that has no result yet, as a process of its own; benches continue where they were killed, so this
command does too. After each bench, docs/claims.json has the effects, and docs/claims.md and runs/claims.html show them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.perf.claims.document import document, page
from tests.perf.claims.table import CLAIMS, Claim
from tests.perf.results import FOLDER, Effect
from vlprm.runs.folder import write_atomically

RECORDS, DOCUMENT, PAGE = Path("docs/claims.json"), Path("docs/claims.md"), Path("runs/claims.html")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="measure nothing; write the document and the page again")
    asked = parser.parse_args()
    failed = []
    for bench in () if asked.render else dict.fromkeys(claim.bench for claim in CLAIMS):
        if not (FOLDER / f"{bench}.json").exists():
            print(f"{bench}: running", flush=True)
            if subprocess.run([sys.executable, "-m", f"tests.perf.{bench}"]).returncode:
                failed.append(bench)
                continue
        store(bench)
    write()
    if failed:
        sys.exit(f"these benches ended with an error, and their claims keep their old records: {', '.join(failed)}")


def store(bench: str) -> None:
    """Take the effects of this bench's result into the records."""
    path = FOLDER / f"{bench}.json"
    result = json.loads(path.read_text())
    found, records = result.get("effects", {}), stored()
    for claim in CLAIMS:
        if claim.bench == bench:
            if claim.effect not in found:
                sys.exit(f"{path} is of older code and has no effect {claim.effect!r}; delete it, and run this again")
            records["effects"][key_of(claim)] = found[claim.effect]
    if result.get("curves"):
        records["curves"][bench] = result["curves"]
    write_atomically(RECORDS, json.dumps({key: dict(sorted(records[key].items())) for key in records}, indent=1) + "\n")
    write()


def stored() -> dict[str, dict[str, Any]]:
    """The effects by claim, and the curves by bench and title."""
    return json.loads(RECORDS.read_text()) if RECORDS.exists() else {"effects": {}, "curves": {}}


def effects(records: Mapping[str, dict[str, Any]]) -> dict[Claim, Effect | None]:
    """The stored effect of each claim."""
    found: dict[Claim, Effect | None] = {}
    for claim in CLAIMS:
        record = records["effects"].get(key_of(claim))
        found[claim] = Effect(**record) if record else None
    return found


def key_of(claim: Claim) -> str:
    return f"{claim.bench}/{claim.effect}"


def write() -> None:
    records = stored()
    found = effects(records)
    write_atomically(DOCUMENT, document(found))
    write_atomically(PAGE, page(found, records["curves"].get("label_curve", {})))


if __name__ == "__main__":
    main()
