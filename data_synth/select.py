"""Select the solutions of a pool or a dataset that are worth training on (ReasonFlux-PRM, Fin-PRM; BIS).

    python -m data_synth.select --config configs/synthesis/select.yaml
    python -m train.sft --dataset runs/selected/selected.parquet --run runs/sft

Ranks all solutions, by stored rewards, by labels or by a reward model, and keeps the best. Writes `selected.parquet`,
`README.md` (the card: what was kept, what was left out and why) and `results.json`. On drawn problems it also prints
how often every step of a selected solution with a right answer is right.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from datasets import Features
from rich.console import Console

from data_synth.selected.candidates import Candidate, Row, groups, source_file
from data_synth.selected.config import SelectConfig
from data_synth.selected.measure import measured, table
from data_synth.selected.ranking import Selection, selection
from data_synth.selected.rows import SFT_FEATURES, selected_row, sft_rows
from data_synth.selected.scoring import score, with_rewards
from vlprm.data.dataset import row_count, write_dataset, write_parquet
from vlprm.errors import UserError
from vlprm.model.loading import checkpoint_folder, load_inputs
from vlprm.policy.open import folders_of, placed
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, timed, write_atomically
from vlprm.runs.pools import stored_candidates
from vlprm.tasks import Tasks, load_tasks

log = logging.getLogger(__name__)

SELECTED, RESULTS, CARD = "selected.parquet", "results.json", "README.md"


def main(config: SelectConfig) -> None:
    """Run `vlprm select`."""
    source, tasks = source_file(config), load_tasks(config.tasks)
    config = dataclasses.replace(config, reward_model=tuple(map(placed, config.reward_model)))
    own, served = folders_of(config.reward_model)
    shown = [checkpoint_folder(config.policy, weights=False)] if config.format == "trl" else []
    open_run(config.run, dump(config), config.seed, [source, *own], [*served, *shown])
    if (config.run / RESULTS).exists():
        log.info("%s already exists", config.run / SELECTED)
    else:
        with timed(config.run, "select"):
            _select(config, tasks)
    measures = json.loads((config.run / RESULTS).read_text())["measures"]
    if measures:
        Console().print(table(measures))


def _select(config: SelectConfig, tasks: Tasks) -> None:
    if config.reward_model:
        total = row_count(config.dataset) if config.dataset else len(stored_candidates(config.pool))  # type: ignore[arg-type]
        score(config, tasks, total)
    candidates = list(with_rewards(config, tasks))
    made = selection(
        candidates, config.by, config.alpha, config.keep, config.per_problem, config.unlike, str(config.seed)
    )
    if not made.candidates:
        raise UserError(_none(config, candidates, made))
    written = _write(config, _rows(config, tasks, made))
    results = {
        "solutions": len(candidates),
        "selected": len(made.candidates),
        "rows": written,
        "least_value": made.values[-1],
        "left_out": dict(made.left_out),
        "measures": measured(candidates, made, config),
    }
    write_atomically(config.run / CARD, _card(config, results))
    write_atomically(config.run / RESULTS, json.dumps(results, indent=2) + "\n")
    log.info("%d of %d solutions in %s", len(made.candidates), len(candidates), config.run / SELECTED)


def _none(config: SelectConfig, candidates: Sequence[Candidate], made: Selection) -> str:
    if made.left_out["without an answer"] == len(candidates):
        return f"none of {len(candidates)} solutions has an answer, so none can be selected; select from another source"
    if made.left_out["without an answer"] + made.left_out["without a value"] < len(candidates):
        return f"keep {config.keep:g} of {len(candidates)} solutions is none; raise keep"
    needs = {"likeliest": "surprise, which a model trained with --surprise gives", "outcome": "known answers"}
    need = needs.get(config.by, "rewards of steps")
    return (
        f"none of {len(candidates)} solutions has a value by {config.by}, which needs {need}; give reward_model, or"
        " rank by another word"
    )


def _rows(config: SelectConfig, tasks: Tasks, made: Selection) -> Iterator[Row]:
    """The rows of the problems with selected solutions, in the order of the source."""
    places: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for one, value in zip(made.candidates, made.values, strict=True):
        places[one.at].append((one.place, value))
    for at, group in enumerate(groups(config, tasks, drawn=True)):
        if at in places:
            yield selected_row(group, [place for place, _ in places[at]], [value for _, value in places[at]])


def _write(config: SelectConfig, rows: Iterator[Row]) -> int:
    path = config.run / SELECTED
    if config.format == "vlprm":
        return write_dataset(path, rows)
    inputs = load_inputs(checkpoint_folder(config.policy, weights=False))
    return write_parquet(path, chain.from_iterable(sft_rows(row, inputs) for row in rows), Features(SFT_FEATURES))


def _card(config: SelectConfig, results: dict[str, Any]) -> str:
    source = config.dataset or config.pool
    scored = ", ".join(model.checkpoint for model in config.reward_model) or "what the source stores"
    left_out = "\n".join(f"- {reason}: {count}" for reason, count in results["left_out"].items())
    measures = "\n".join(
        f"- {name}: {row['selected']:.0f} solutions, {_share(row['right'])} with a right answer, and of these"
        f" {_share(row['true'])} with every step right"
        for name, row in results["measures"].items()
    )
    measured_part = f"\n## Against the ground truth\n\n{measures}\n" if measures else ""
    return f"""# Selected solutions

{results["selected"]} of {results["solutions"]} solutions of {source}, in {results["rows"]} rows.

- ranked by: {config.by} (alpha {config.alpha:g}), from {scored}
- kept: a share of {config.keep:g}, at most {config.per_problem} per problem
- least value: {results["least_value"]:.4g}

## Left out

{left_out}
{measured_part}"""


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    run(main, SelectConfig)
