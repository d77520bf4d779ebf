"""Plan the batches of a run from the index of its dataset.

An epoch is one pass over all training rows, in batches under a budget of tokens. The dataset is read as a stream:
its row groups are shuffled and joined into windows of bounded bytes, and rows are shuffled within a window, so that
each process reads a row group once. A small dataset is one window. If a step has several batches (devices, or
accumulation), they have about equal cost, so that no device waits for another.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Sequence

import numpy as np
from accelerate import PartialState

from train.loop.batches import plan_epoch
from train.reward import advice
from train.reward.config import PrmConfig, RowsConfig
from train.reward.data import check_counts, check_pairs, class_weights, lacking
from train.reward.index import Index, Problems, load_index
from train.reward.mixture import JoinedRows, drawn
from train.reward.split import held_out
from train.reward.trainer import Batches
from vlprm.data.row_file import KEPT_BYTES
from vlprm.errors import UserError
from vlprm.images import keep_decoded
from vlprm.model.inputs import STREAMED_BYTES, InputBuilder

log = logging.getLogger(__name__)


def split_rows(config: PrmConfig, inputs: InputBuilder) -> tuple[Batches, Batches]:
    """Training and held-out batches. Problems that share an image are on the same side. UserError on unusable data."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive a fork
    keep_decoded(STREAMED_BYTES)
    rows = JoinedRows(config.datasets)
    with PartialState().main_process_first():
        index = load_index(config, inputs, rows)
    taken, unlabelled = _taken(config, index)
    shown, starts = index.lists("shown")
    try:
        sides = held_out([shown[starts[n] : starts[n + 1]].tolist() for n in taken], config.held_out, config.seed)
    except UserError as error:
        raise UserError(f"{config.dataset}: {error}") from error
    learnt, kept = (taken[np.array(side, dtype=np.int64)] for side in sides)
    if config.loss.labels != "outcome":
        advice.on_wrong_steps(index.table["rule"].unique().to_pylist(), config.loss.threshold)
    weights = class_weights(_counts(index, learnt), config.loss)
    train = _fitting(index, rows, learnt, config.rows, inputs.context)
    known = [bool(index.lists(name)[0][train].any()) for name in ("candidates", "siblings", "counted")]
    check_pairs((known[0], known[1]), config.loss)
    check_counts(known[2], config.loss)
    measured = _fitting(index, rows, kept, config.rows, inputs.context)
    tokens = index.lists("tokens")[0]
    log.info("%d problems in %d rows (%d tokens), %d held out", len(learnt), len(train), tokens[train].sum(), len(kept))
    plan = _plan(config, index, rows, train, inputs.width)
    per_step = config.accumulate * PartialState().num_processes
    steps, untagged = index.column("steps")[learnt].sum(), index.column("untagged")[learnt].sum()
    advice.on_untagged_steps(int(untagged), int(steps), inputs.config.prompt_template)
    advice.on_few_steps(len(plan) // per_step, config)
    left_out = {
        "solutions_without_labels": unlabelled,
        "rows_left_out": len(index.examples_of(learnt)) - len(train),
        "eval_rows_left_out": len(index.examples_of(kept)) - len(measured),
    }
    problems = Problems(rows, config.rows, config.loss)
    # Held out: one row per batch, because metrics from all devices are gathered row by row.
    return (
        Batches(plan, index, problems, inputs, weights, left_out),
        Batches([*measured[:, None]], index, problems, inputs, weights),
    )


# --- rows


def _taken(config: PrmConfig, index: Index) -> tuple[np.ndarray, int]:
    """The problems with solutions that the loss learns from, and the number of selected solutions that it does not
    learn from. UserError without such problems."""
    chosen = _filtered(config, index)
    if len(chosen) < len(index):
        log.info("%d of %d problems are left by the filters of rows", len(chosen), len(index))
    counts = [index.column(name)[chosen] for name in ("solutions", "selected", "learnt")]
    solutions, selected, learnt = (int(count.sum()) for count in counts)
    log.info("%d of %d solutions of %d problems selected", selected, solutions, len(chosen))
    if not learnt:
        raise UserError(f"{config.dataset}: none of its {selected} solutions has {lacking(config.loss)}")
    if learnt < selected:
        log.info("%d solutions have no label that the loss reads, and were left out", selected - learnt)
    return chosen[counts[2] > 0], selected - learnt


def _filtered(config: PrmConfig, index: Index) -> np.ndarray:
    """The problems that `rows` allows. UserError if there are none."""
    chosen = np.flatnonzero(index.column("mixed") | (not config.rows.mixed))
    if not len(chosen):
        raise UserError(
            f"no problem of {config.dataset} has solutions known to be right and solutions known to be wrong; leave out"
            " rows.mixed"
        )
    if config.rows.solved is not None:
        low, high = config.rows.solved
        shares = index.column("solved")[chosen]  # NaN, without a result, is in no range
        chosen = chosen[(shares >= low) & (shares <= high)]
        if not len(chosen):
            raise UserError(
                f"no problem of {config.dataset} has a share of right solutions from {low:g} to {high:g}; widen"
                " rows.solved, or leave it out"
            )
    if config.rows.distinct:
        _, firsts = np.unique(index.column("same")[chosen], return_index=True)
        chosen = chosen[np.sort(firsts)]
    return chosen


def _counts(index: Index, problems: np.ndarray) -> list[tuple[str, int, int]]:
    """Right and wrong steps with a loss of these problems, by question type."""
    types = index.table["type"].combine_chunks()
    codes, right, wrong = np.asarray(types.indices.to_numpy()), index.column("right"), index.column("wrong")
    counts = []
    for code, name in enumerate(types.dictionary.to_pylist()):
        of_type = problems[codes[problems] == code]
        counts.append((name, int(right[of_type].sum()), int(wrong[of_type].sum())))
    return counts


def _fitting(index: Index, rows: JoinedRows, problems: np.ndarray, config: RowsConfig, context: int) -> np.ndarray:
    """The examples of these problems. Rows longer than `config.longest`, or with a solution longer than the backbone's
    `context`, raise UserError or are dropped, as `config.over_long` says."""
    examples = index.examples_of(problems)
    tokens, depths = (index.lists(name)[0][examples] for name in ("tokens", "depths"))
    fits = (tokens <= config.longest) & (depths <= context)
    too_long = int((~fits).sum())
    if too_long and config.over_long == "refuse":
        problem = int(index.problem_of(examples[~fits][:1])[0])
        first = f"{rows.name(int(index.first_rows[problem]))} ({index.table['id'][problem].as_py()})"
        if depths.max() > context:
            raise UserError(
                f"{first} or a later one has a solution of {depths.max()} tokens, and the backbone reads {context};"
                " skip it with rows.over_long: drop, or lower max_pixels"
            )
        raise UserError(
            f"{first} and {too_long - 1} more problems have up to {tokens.max()} tokens; raise rows.longest (now"
            f" {config.longest}), or skip them with rows.over_long: drop"
        )
    if too_long:
        log.info("%d of %d rows are too long and were skipped", too_long, len(examples))
    if too_long and too_long == len(examples):
        raise UserError(
            f"all {len(examples)} rows are too long for rows.longest ({config.longest}) or the backbone; raise"
            " rows.longest, or lower max_pixels"
        )
    return np.asarray(examples[fits])


# --- batches


def _plan(config: PrmConfig, index: Index, rows: JoinedRows, train: np.ndarray, width: int) -> list[np.ndarray]:
    """The examples of each batch, epoch after epoch."""
    tokens, first_rows = index.lists("tokens")[0], index.first_rows[index.problem_of(train)]
    firsts = np.cumsum([0, *(count for count, _ in rows.groups)])
    homes, parts = np.searchsorted(firsts, first_rows, side="right") - 1, rows.part_of(first_rows)
    per_step = config.accumulate * PartialState().num_processes
    plan: list[np.ndarray] = []
    for epoch in range(config.epochs):
        seed = config.seed + epoch
        taken = drawn(parts, [1.0, *config.also.values()], seed)
        windows = shuffled_windows(homes[taken].tolist(), [size for _, size in rows.groups], seed)
        examples = train[taken]
        batches = plan_epoch(tokens[examples].tolist(), config.rows.batch_tokens, seed, windows, per_step, width)
        plan += [examples[np.array(batch)] for batch in batches]
    return plan


def shuffled_windows(homes: Sequence[int], group_bytes: Sequence[int], seed: int) -> list[list[int]]:
    """The rows by window: row groups in random order, joined up to KEPT_BYTES. `homes` has the group of each row."""
    if sum(group_bytes) <= KEPT_BYTES:
        return [[*range(len(homes))]]
    of_group: list[list[int]] = [[] for _ in group_bytes]
    for row, home in enumerate(homes):
        of_group[home].append(row)
    windows: list[list[int]] = []
    room = 0
    for group in random.Random(seed).sample(range(len(group_bytes)), len(group_bytes)):
        if not windows or group_bytes[group] > room:
            windows.append([])
            room = KEPT_BYTES
        windows[-1] += of_group[group]
        room -= group_bytes[group]
    return [window for window in windows if window]
