"""Tokenize the steps of a policy's turn, and make the text that a server reads.

A step's ids depend on its own text and the step before it, never on what follows, and end with the id that holds its
last character. If the tokenizer merges that character with the separator into one token (Qwen's tokenizers merge a full
stop with the line breaks after it), the id holds both, even if no step follows. So the ids of a turn are those of its
full text, which the policy wrote and a server reads, and a step is scored where the policy ended it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from vlprm.schema import HALF_CHARACTER, Step
from vlprm.steps import SEPARATOR, join_steps, separator_after, turns_of

TOOL_CALL = {"<tool_call>", "</tool_call>"}


class TurnText:
    """Tokenizes the text of turns, with a cache of `remembered` texts."""

    def __init__(self, tokenizer: Any, remembered: int = 1 << 16) -> None:
        self.tokenizer = tokenizer
        self._control = _control_tokens(tokenizer)
        self.encode = lru_cache(remembered)(self._encode)

    def step_ids(self, step: Step, after: Step | None, closes: bool = False) -> tuple[int, ...]:
        """The ids of a step `after` another (None: the first step), with the separator between them. `closes`: the step
        ends the turn, so no separator is merged into its last id."""
        joined = not closes and self.joins(step)
        return self.lead(after) + self.encode(step.text + separator_after(step) * joined)

    def lead(self, after: Step | None) -> tuple[int, ...]:
        """The ids between those of a step and those of the next."""
        if after is None or after.ends_turn or self.joins(after):
            return ()
        return self.encode(separator_after(after))

    def joins(self, step: Step) -> bool:
        """Whether the id of the step's last character also holds the separator after it."""
        between = separator_after(step)
        if step.ends_turn or not between:
            return False
        return self.encode(step.text + between) != self.encode(step.text) + self.encode(between)

    def turn(self, steps: Sequence[Step]) -> str:
        """The text of a turn or of its beginning, whose ids are those of `step_ids`."""
        return join_steps(steps) + (SEPARATOR if self.joins(steps[-1]) else "")

    def served_alike(self, steps: Sequence[Step]) -> bool:
        """Whether a server tokenizes the text of the steps to the same ids. It does not if a step spells out a control
        token, which is plain text here, or begins with white space that the tokenizer merges with the separator before
        it."""
        if any(self.control_token(step.text) for step in steps):
            return False
        return all(self.encode(self.turn(turn)) == self._ids(turn, None) for turn in turns_of(steps))

    def to_the_end_of(self, steps: Sequence[Step], ids: tuple[int, ...], after: Step | None) -> tuple[int, ...]:
        """The sampled ids up to the end of the steps, as `step_ids` ends them; if no sampled id ends exactly there, the
        ids of the steps' text."""
        text = (SEPARATOR if self.lead(after) else "") + join_steps(steps)
        if steps and self.joins(steps[-1]):
            text += SEPARATOR
        ends = (end for end in range(len(ids), 0, -1) if self.tokenizer.decode(ids[:end]) == text)
        end = next(ends, None)
        return self._ids(steps, after) if end is None else ids[:end]

    def parting(self, texts: tuple[str, str]) -> tuple[tuple[int, ...], tuple[int, int]]:
        """The ids with which two texts begin alike, and the next id of each."""
        first, second = map(self.encode, texts)
        at = next((k for k, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
        assert at is not None, f"one text begins with the other: {texts}"
        return first[:at], (first[at], second[at])

    def control_token(self, text: str) -> str | None:
        """The control token that the text spells out, or None."""
        return next((token for token in self._control if token in text), None)

    def _ids(self, steps: Sequence[Step], after: Step | None) -> tuple[int, ...]:
        before = (after, *steps[:-1])
        return tuple(itertools.chain(*(self.step_ids(s, b) for s, b in zip(steps, before, strict=True))))

    def _encode(self, text: str) -> tuple[int, ...]:
        # A server may write half of a surrogate pair; U+FFFD is what a decoder makes of it.
        text = HALF_CHARACTER.sub("\ufffd", text)
        # Spelt-out control tokens are tokenized as text, so that a solution cannot end its turn or insert an image.
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def _control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Tokens that are plain text here and control tokens to a server. Tool-call tokens are tokens in both, unless the
    tokenizer marks them as special."""
    spelt = {token.content for token in tokenizer.added_tokens_decoder.values() if not token.special}
    return tuple(token for token in tokenizer.get_added_vocab() if token not in spelt & TOOL_CALL)
