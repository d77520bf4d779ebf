"""A transformers model in this process as a policy: one batch for all waiting requests, one prefill per prefix.

Requests queue until no coroutine can continue without an answer. Then they are prefilled together (each prefix once,
however many continuations it has), the KV cache is repeated, and all continuations are decoded in one loop.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint
from vlprm.model.packing import PackedRow, consecutive
from vlprm.policy import Continuation, Request, read_by_first
from vlprm.policy.batcher import Batcher
from vlprm.policy.kept import Kept
from vlprm.policy.prefill import Prefilled, keep_blocks, prefill
from vlprm.schema import Problem, Region
from vlprm.steps import separator_after, split_steps, step_end
from vlprm.zoom.boxes import Size

MAX_ROWS = 256


class LocalPolicy:
    """A policy in this process. It decodes up to `max_rows` continuations in one batch."""

    def __init__(self, checkpoint: Checkpoint, max_rows: int = MAX_ROWS) -> None:
        self.checkpoint = checkpoint
        self.dialect, self.zoom = checkpoint.config.dialect, checkpoint.config.zoom
        self.max_rows = max_rows
        kept = Kept()
        self._together = Batcher(lambda requests: generate(checkpoint, requests, kept), self._first_batch)

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> Size:
        """See `Policy.seen_size`."""
        return self.checkpoint.inputs.seen_size(problem, shown)

    def crop_tokens(self, problem: Problem, region: Region) -> int:
        """See `Policy.crop_tokens`."""
        return self.checkpoint.inputs.crop_tokens(problem, region)

    async def sample(self, request: Request) -> list[Continuation]:
        """Return `request.n` continuations, batched with the other waiting requests."""
        return await self._together.ask(request)

    def _first_batch(self, requests: Sequence[Request]) -> list[int]:
        # Prefixes of similar length share a batch, to save padding. The sort is stable, so batches are reproducible.
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].steps))
        groups = consecutive([requests[i].n for i in order], self.max_rows)
        return [order[i] for i in groups[0]]


@torch.inference_mode()
def generate(checkpoint: Checkpoint, requests: Sequence[Request], kept: Kept | None = None) -> list[list[Continuation]]:
    """Continue all requests in one batch. Requests that do not fit into the context get the failure `context`. What was
    `kept` in earlier calls is not computed again. Shapes: R requests, N sampled rows, T tokens, V vocabulary."""
    rows = [_row(checkpoint.inputs, request) for request in requests]
    fits = [len(row.ids) + r.max_tokens <= checkpoint.inputs.context for row, r in zip(rows, requests, strict=True)]
    fitting = [i for i, fit in enumerate(fits) if fit]
    asked, read = [requests[i] for i in fitting], [rows[i] for i in fitting]
    found = _generate(checkpoint, asked, read, kept or Kept()) if fitting else []
    written = (read_by_first(of, len(rows[i].ids)) for i, of in zip(fitting, found, strict=True))
    too_long = Continuation("", 0, False, failure="context")
    return [next(written) if fit else [too_long] * r.n for r, fit in zip(requests, fits, strict=True)]


def _generate(
    checkpoint: Checkpoint, requests: Sequence[Request], rows: Sequence[PackedRow], kept: Kept
) -> list[list[Continuation]]:
    inputs = checkpoint.inputs
    prompts = [len(inputs.prompt(request.problem).ids) for request in requests]
    read = prefill(checkpoint, rows, prompts, kept)
    repeats = torch.tensor([r.n for r in requests], device=read.mask.device)
    source_N = torch.arange(len(requests), device=read.mask.device).repeat_interleave(repeats)
    read.cache.batch_select_indices(source_N)
    decoder = _Decoder(checkpoint, requests, read, kept)
    sampled = decoder.run(read.logits[source_N], read.mask[source_N], read.next_position[source_N])
    rows_of = iter(zip(sampled, decoder.logprobs, strict=True))
    written = [
        [_continuation(inputs, *next(rows_of), request, decoder.ends) for _ in range(request.n)] for request in requests
    ]
    return [
        [_preference(inputs, logits_V, request.between)] * request.n if request.between else of
        for of, logits_V, request in zip(written, read.logits, requests, strict=True)
    ]


def _preference(inputs: InputBuilder, logits_V: Tensor, texts: tuple[str, str]) -> Continuation:
    _, (first, second) = inputs.text.parting(texts)
    return Continuation("", 0, True, probability=torch.sigmoid(logits_V[first] - logits_V[second]).item())


def _row(inputs: InputBuilder, request: Request) -> PackedRow:
    if request.between:
        begun, _ = inputs.text.parting(request.between)
        return inputs.asked_row(request.problem, request.steps, request.asked or "", begun)
    if request.asked is not None:
        return inputs.asked_row(request.problem, request.steps, request.asked)
    if request.one_step:
        return inputs.begun_row(request.problem, request.steps)
    return inputs.sampled_row(request.problem, request.steps, [(turn.steps, turn.ids) for turn in request.sampled])


class _Decoder:
    """The decoding loop. It keeps track of the sampled text and of the rows that are still open."""

    def __init__(self, checkpoint: Checkpoint, requests: Sequence[Request], read: Prefilled, kept: Kept) -> None:
        self.model, self.inputs, self.cache, self.kept = checkpoint.model, checkpoint.inputs, read.cache, kept
        self.prefixes = [prefix for prefix, r in zip(read.prefixes, requests, strict=True) for _ in range(r.n)]
        self.max_tokens = max(r.max_tokens for r in requests)
        device = self.model.device
        self.temperature_N1 = _per_row([r.temperature for r in requests], requests, device)[:, None]
        self.limit_N = _per_row([r.max_tokens for r in requests], requests, device)
        streams = [_stream(r, i) for r in requests for i in range(r.n)]
        self.uniform_NT = torch.tensor(np.stack([s.random(self.max_tokens) for s in streams]), device=device).float()
        self.banned = torch.tensor(self.inputs.banned_ids, device=device)
        self.ends = ends_of(checkpoint)
        self.one_step = [r.one_step for r in requests for _ in range(r.n)]
        self.written = [""] * len(self.one_step)
        self.with_logprobs = any(r.logprobs for r in requests)
        self.logprobs: list[list[float]] = [[] for _ in self.one_step]  # those of each row's sampled ids, if asked for

    def run(self, logits_NV: Tensor, mask_NT: Tensor, position_N: Tensor) -> list[list[int]]:
        """Sampled ids of each row, including the token that ends a text if it was reached."""
        sampled: list[list[int]] = [[] for _ in range(len(logits_NV))]
        open_N = torch.arange(len(sampled), device=logits_NV.device)
        for t in range(self.max_tokens):
            token_N = self._choose(logits_NV, open_N, t)
            if self.with_logprobs:
                self._keep_logprobs(logits_NV, open_N, token_N)
            closed = []
            for row, token in zip(open_N.tolist(), token_N.tolist(), strict=True):
                sampled[row].append(token)
                closed.append(token in self.ends or self._ends_step(row, token))
            open_still = ~torch.tensor(closed, device=token_N.device)
            keep = (open_still & (t + 1 < self.limit_N[open_N])).nonzero().squeeze(1)
            self._keep_closed(open_N, keep, sampled)
            if len(keep) == 0:
                break
            if len(keep) < len(open_N):
                open_N, token_N, mask_NT, position_N = open_N[keep], token_N[keep], mask_NT[keep], position_N[keep]
                self.cache.batch_select_indices(keep)
            mask_NT = torch.cat([mask_NT, mask_NT.new_ones(len(open_N), 1)], dim=1)
            out = self.model(
                input_ids=token_N[:, None],
                attention_mask=mask_NT,
                position_ids=self._positions(position_N),
                past_key_values=self.cache,
                use_cache=True,
            )
            logits_NV, position_N = out.logits[:, -1].float(), position_N + 1
        return sampled

    def _keep_closed(self, open_N: Tensor, stays: Tensor, sampled: Sequence[list[int]]) -> None:
        """Keep the keys and values of closed rows that may be continued: those of one step, and turns with a zoom."""
        for j in set(range(len(open_N))).difference(stays.tolist()):
            row = int(open_N[j])
            prefix, ids = self.prefixes[row], sampled[row][:-1]  # the last id has not been read
            if prefix and (self.one_step[row] or _zooms(self.inputs.tokenizer.decode(ids))):
                keep_blocks(self.kept, prefix, (*prefix.row.ids, *ids), self.cache, j)

    def _positions(self, position_N: Tensor) -> Tensor:
        if self.inputs.family.positions == "linear":
            return position_N[:, None]
        return position_N[None, :, None].expand(3, -1, 1)

    def _ends_step(self, row: int, token: int) -> bool:
        """Whether one step was asked for and this token ends it."""
        if not self.one_step[row]:
            return False
        self.written[row] += self.inputs.tokenizer.decode([token])
        return step_end(self.written[row]) is not None

    def _choose(self, logits_NV: Tensor, open_N: Tensor, t: int) -> Tensor:
        logits_NV[:, self.banned] = -torch.inf
        temperature_N1 = self.temperature_N1[open_N]
        drawn_N = draw((logits_NV / temperature_N1.clamp(min=1e-6)).softmax(-1), self.uniform_NT[open_N, t])
        return torch.where(temperature_N1[:, 0] == 0, logits_NV.argmax(-1), drawn_N)

    def _keep_logprobs(self, logits_NV: Tensor, open_N: Tensor, token_N: Tensor) -> None:
        """Keep the log-probabilities of the chosen ids; `_choose` has excluded the banned ids from the logits."""
        temperature_N1 = self.temperature_N1[open_N]
        scaled_NV = logits_NV / temperature_N1.where(temperature_N1 > 0, 1.0)
        chosen_N = scaled_NV.log_softmax(-1).gather(-1, token_N[:, None])[:, 0]
        for row, logprob in zip(open_N.tolist(), chosen_N.tolist(), strict=True):
            self.logprobs[row].append(logprob)


def _zooms(text: str) -> bool:
    return any(step.kind == "zoom" for step in split_steps(text))


def ends_of(checkpoint: Checkpoint) -> frozenset[int]:
    """The ids that end a text: the end of a turn, and those that the model's generation config lists (Qwen's lists the
    end of a document too)."""
    listed = checkpoint.model.generation_config.eos_token_id
    ids = listed if isinstance(listed, list) else [listed]
    return frozenset({checkpoint.inputs.end_of_turn, *(i for i in ids if i is not None)})


def draw(probabilities_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """Sample one id per row by inverting the cumulative distribution at the row's own uniform number.

    The rounded sum may be less than 1, so the number is scaled to it: an id of probability 0 is never drawn.
    """
    cumulative_NV = probabilities_NV.cumsum(-1)
    return (cumulative_NV < uniform_N[:, None] * cumulative_NV[:, -1:]).sum(-1)


def _per_row(values: Sequence[float], requests: Sequence[Request], device: torch.device) -> Tensor:
    return torch.tensor(
        list(itertools.chain.from_iterable([v] * r.n for v, r in zip(values, requests, strict=True))), device=device
    )


def _stream(request: Request, index: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{request.seed}/{request.key}/{index}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _continuation(
    inputs: InputBuilder, ids: list[int], logprobs: list[float], request: Request, ends: frozenset[int]
) -> Continuation:
    known = tuple(logprobs) if request.logprobs else ()
    ended = bool(ids) and ids[-1] in ends
    text = inputs.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
    if request.one_step:
        end = step_end(text)
        return Continuation(text[:end], len(ids), ended, goes_on=end is not None, ids=tuple(ids), logprobs=known)
    # A continuation after a written step begins with the paragraph break, which belongs to neither step.
    after_step = bool(request.steps) and not request.steps[-1].ends_turn and request.asked is None
    between = separator_after(request.steps[-1]) if after_step else ""
    return Continuation(text.removeprefix(between), len(ids), ended, ids=tuple(ids), logprobs=known)
