"""Measure the claims of the field in the built-in world, and write docs/claims.md.

    make demo && make claims
    python -m tests.perf.claims --render        # only write the document again, from the stored records

Runs each bench that has no result yet, as a process of one thread, two at a time; benches continue where they were
killed, so this command does too. After each bench, docs/claims.json has the effects, and docs/claims.md and
runs/claims.html show them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tests.perf.claims.document import document, page
from tests.perf.claims.table import CLAIMS, Claim
from tests.perf.results import FOLDER, Effect
from vlprm.runs.folder import write_atomically

# These read reward models that the other trains.
AFTER = dict.fromkeys(("ablations", "aggregations", "value_in_beams", "vote"), "label_schemes")
RECORDS, DOCUMENT, PAGE = Path("docs/claims.json"), Path("docs/claims.md"), Path("runs/claims.html")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="measure nothing; write the document and the page again")
    parser.add_argument("--processes", type=int, default=2, help="benches at a time; each takes about 3 GB")
    asked = parser.parse_args()
    failed = [] if asked.render else measured(asked.processes)
    write()
    if failed:
        sys.exit(f"these benches ended with an error, and their claims keep their old records: {', '.join(failed)}")


def measured(processes: int) -> list[str]:
    """Run the benches without a result, and store the effects of each. The benches that ended with an error."""
    failed = []
    with ThreadPoolExecutor(processes) as pool:
        runs: dict[str, Future[bool]] = {}
        # Those that wait come last, so that none waits while another could run.
        for bench in sorted(dict.fromkeys(claim.bench for claim in CLAIMS), key=AFTER.__contains__):
            runs[bench] = pool.submit(succeeds, bench, runs.get(AFTER.get(bench, "")))
        bench_of = {run: bench for bench, run in runs.items()}
        for run in as_completed(bench_of):
            if run.result():
                store(bench_of[run])
            else:
                failed.append(bench_of[run])
    return failed


def succeeds(bench: str, after: Future[bool] | None) -> bool:
    """Whether the bench has a result, which is measured unless it is there, once the bench before it has ended."""
    if after is not None:
        after.result()
    if (FOLDER / f"{bench}.json").exists():
        return True
    print(f"{bench}: running", flush=True)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # two threads beside another process are slower than one
    return not subprocess.run([sys.executable, "-m", f"tests.perf.{bench}"], env=env).returncode


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
