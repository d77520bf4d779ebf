"""Write the claims of perception steps with their spans and truth, for candidates of drawn problems.

    python -m data_synth.claims --candidates runs/demo/eval --run runs/claims

Labels for a verifier that lists wrong claims (as Perceval does, whose training data are not public), and a test for
one. `claims.jsonl` has one line per candidate: its key, problem, question and steps, each with its text, kind, truth,
and claims as `{"start", "end", "correct", "true"}` in characters of the text.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from data_synth.labels.config import ClaimsConfig
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, write_atomically
from vlprm.runs.pools import RECORDS, stored_pools
from vlprm.runs.progress import tracked
from vlprm.schema import Problem, Step
from vlprm.tasks import Tasks, load_tasks, problem_by_id, refuse_other_tasks, task_of
from vlprm.tasks.spans import claim_spans

log = logging.getLogger(__name__)
CLAIMS = "claims.jsonl"


def main(config: ClaimsConfig) -> None:
    """Write the claims and log how many are wrong."""
    tasks = load_tasks(config.tasks)
    pools = stored_pools(config.candidates)
    refuse_other_tasks((problem_id for problem_id, _ in pools), tasks)
    open_run(config.run, dump(config), 0, [config.candidates / RECORDS])
    lines, counts = [], Counter[str]()
    for problem_id, candidates in tracked(pools, "problems", len(pools)):
        problem = problem_by_id(problem_id, tasks, drawn=False)
        for i, candidate in enumerate(candidates):
            steps = labelled(problem, candidate.steps, tasks)
            count(steps, counts)
            named = {"key": f"{problem_id}/{i}", "problem": problem_id, "question": problem.question}
            lines.append(json.dumps({**named, "steps": steps}) + "\n")
    write_atomically(config.run / CLAIMS, "".join(lines))
    log.info(
        "%d claims of %d perception steps; %d claims of %d steps are wrong, in %s",
        counts["claims"], counts["steps"], counts["wrong_claims"], counts["wrong_steps"], config.run / CLAIMS,
    )  # fmt: skip


def labelled(problem: Problem, steps: Sequence[Step], tasks: Tasks) -> list[dict[str, Any]]:
    """The steps with their truth (null: does not parse) and their claims."""
    family = task_of(problem.task, tasks)
    verdicts, spans = family.verdicts(problem, steps), claim_spans(family, problem, steps)
    return [
        {
            "text": step.text,
            "kind": step.kind,
            "correct": None if verdict is None else verdict.correct,
            "claims": [asdict(span) for span in of_step],
        }
        for step, verdict, of_step in zip(steps, verdicts, spans, strict=True)
    ]


def count(steps: Sequence[dict[str, Any]], counts: Counter[str]) -> None:
    """Add up the steps with claims, their claims, and the wrong ones of both."""
    for step in steps:
        claims = step["claims"]
        wrong = sum(not claim["correct"] for claim in claims)
        counts.update(claims=len(claims), steps=bool(claims), wrong_claims=wrong, wrong_steps=bool(wrong))


if __name__ == "__main__":
    run(main, ClaimsConfig)
