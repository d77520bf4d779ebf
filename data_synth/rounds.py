"""Make search trees of a policy's own rounds, so that its reward model can be trained again on what it writes now.

    python -m data_synth.rounds --grpo runs/policy/grpo --newest 5 --run runs/policy/own_trees
    python -m data_synth.label --trees runs/policy/own_trees --run runs/policy/own_labels --rule mc

Writes the run folder of data_synth.trees, which data_synth.judge, data_synth.inject and data_synth.label read.
"""

from __future__ import annotations

import logging

from data_synth.search.config import RoundsConfig
from data_synth.search.rounds import Rounds, problems_of, tree_of
from data_synth.search.store import IMAGES, SUMMARY, TREES, Failed, Searched, failure_record, tree_record
from vlprm.errors import ProblemError
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, timed
from vlprm.runs.index import FAILED
from vlprm.runs.journal import Records, finish
from vlprm.runs.progress import tracked
from vlprm.runs.window import refuse_if_all_failed

log = logging.getLogger(__name__)


def main(config: RoundsConfig) -> None:
    """Run `vlprm rounds`."""
    rounds, problem = Rounds(config.grpo, config.newest), problems_of(config.grpo)
    open_run(config.run, dump(config), 0, rounds.files)
    records = Records(config.run / TREES, SUMMARY)
    with timed(config.run, "rounds"):
        for at, problem_id in enumerate(tracked(rounds.ids, "problems", len(rounds.ids))):
            if problem_id in records.keys:
                continue
            try:
                made = problem(problem_id)
            except ProblemError as error:
                records.append([failure_record(at, Failed(problem_id, error.cause, str(error)))])
                continue
            tree = tree_of(made, list(rounds.group(problem_id)))
            records.append([tree_record(at, Searched(made, tree), config.run / IMAGES)])
    refuse_if_all_failed(records, lambda record: str(record["said"]), "no problem can be read", "correct the problems")
    finish(records)
    notes = [entry.note for entry in records.entries() if FAILED not in entry.note]
    mixed = sum(note["mixed"] for note in notes)
    log.info("%d trees of %d rounds, %d with right and wrong solutions", len(notes), len(rounds.files), mixed)
    if rounds.replaced:
        log.info("%d older groups left out, because their problems came up again", rounds.replaced)


if __name__ == "__main__":
    run(main, RoundsConfig)
