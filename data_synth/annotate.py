"""Confirm or override step labels in the browser: a person as a source of verdicts.

    python -m data_synth.annotate --config configs/synthesis/annotate.yaml --run runs/demo/alice

Serves a page to this machine only, which asks about the most doubtful steps first, each in its solution beside the
image. Every answer is in `annotations.jsonl` of the run folder before the page goes on; the same command continues
after a kill. At any time the folder is a source of labels for `data_synth.label --judgements`, named like the folder.
Each person has a folder of their own.
"""

from __future__ import annotations

import logging

from data_synth.annotations.config import AnnotateConfig
from data_synth.annotations.journal import ANNOTATIONS, AnnotationJournal
from data_synth.annotations.queue import Fused, StepQuestions, Unfused
from data_synth.judges.config import declared_rates
from data_synth.search.store import TreeRun
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run
from vlprm.viewer.annotate import AnnotationServer

log = logging.getLogger(__name__)

VIEW = ("labels", "order", "steps", "port")  # what is shown in which order does not change what was said


def main(config: AnnotateConfig) -> None:
    """Serve the page until Ctrl-C."""
    rates = declared_rates(config.specificity, config.sensitivity)
    trees = TreeRun(config.trees)
    source = Fused(config.labels, trees) if config.labels else Unfused(trees)
    open_run(config.run, dump(config), 0, trees.files, free=VIEW)
    journal = AnnotationJournal(config.run / ANNOTATIONS, set(trees.ids), rates)
    try:
        log.info("looking for the %d most doubtful steps of %d trees", config.steps, len(source))
        questions = StepQuestions(source, journal, config.order, config.steps)
        with AnnotationServer(config.port, config.run.resolve().name, questions) as server:
            log.info("open %s in a browser; stop with Ctrl-C", server.url)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                done = questions.progress(0)
                log.info("%d of %d steps answered", done.answered + done.moot, done.total)
    finally:
        journal.close()


if __name__ == "__main__":
    run(main, AnnotateConfig)
