"""The steps that a policy writes in a turn, as ids and as the text that a server reads.

A step's ids depend on the step before it and on its own text, never on what follows. They end with the id that holds
its last character. Where the tokenizer makes one piece of that character and the separator (Qwen's do of a full stop
and the line breaks after it), the id holds both, whether another step follows or not. So the ids of a turn are those of
its whole text, which is what a policy wrote and a server reads, and a step is scored where a policy has ended it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from vlprm.schema import Step
from vlprm.steps import SEPARATOR, join_steps, separator_after, turns_of

TOOL_CALL = {"<tool_call>", "</tool_call>"}


class TurnText:
    """The text of turns as a tokenizer has it; its state is a cache of what was split before."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._control = _control_tokens(tokenizer)
        self.encode = lru_cache(1 << 16)(self._encode)

    def step_ids(self, step: Step, after: Step | None, closes: bool = False) -> tuple[int, ...]:
        """The ids of a step `after` another (None: the solution's first), with what stands between the two. To one that
        `closes` the turn nothing is joined."""
        joined = not closes and self.joins(step)
        return self.lead(after) + self.encode(step.text + separator_after(step) * joined)

    def lead(self, after: Step | None) -> tuple[int, ...]:
        """What stands between the ids of a step and those of the next."""
        if after is None or after.ends_turn or self.joins(after):
            return ()
        return self.encode(separator_after(after))

    def joins(self, step: Step) -> bool:
        """Whether the id that holds the step's last character holds the separator after it too."""
        between = separator_after(step)
        if step.ends_turn or not between:
            return False
        return self.encode(step.text + between) != self.encode(step.text) + self.encode(between)

    def turn(self, steps: Sequence[Step]) -> str:
        """The text of a turn, or of its beginning, of which `step_ids` are the ids."""
        return join_steps(steps) + (SEPARATOR if self.joins(steps[-1]) else "")

    def served_alike(self, steps: Sequence[Step]) -> bool:
        """Whether a server makes these ids of the text of the steps. Not so where one spells out a control token, which
        is text here and would be the token there; nor where one opens with white space that the tokenizer joins to the
        separator before it."""
        if any(self.control_token(step.text) for step in steps):
            return False
        return all(self.encode(self.turn(turn)) == self._ids(turn, None) for turn in turns_of(steps))

    def to_the_end_of(self, steps: Sequence[Step], ids: tuple[int, ...], after: Step | None) -> tuple[int, ...]:
        """Of ids that were sampled, those up to the end of the steps; those of their text where no id ends with it."""
        text = (SEPARATOR if self.lead(after) else "") + join_steps(steps)
        ends = (end for end in range(len(ids), 0, -1) if self.tokenizer.decode(ids[:end]) == text)
        end = next(ends, None)
        return self._ids(steps, after) if end is None else ids[:end]

    def control_token(self, text: str) -> str | None:
        """A control token that the text spells out."""
        return next((token for token in self._control if token in text), None)

    def _ids(self, steps: Sequence[Step], after: Step | None) -> tuple[int, ...]:
        before = (after, *steps[:-1])
        return tuple(itertools.chain(*(self.step_ids(s, b) for s, b in zip(steps, before, strict=True))))

    def _encode(self, text: str) -> tuple[int, ...]:
        # Spelt-out control tokens stay text: a solution must not be able to close its turn or to claim an image.
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def _control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Tokens whose spelling is text in this process and would be the token to a server. Those of a tool call are the
    token to both, unless the tokenizer calls them special."""
    spelt = {token.content for token in tokenizer.added_tokens_decoder.values() if not token.special}
    return tuple(token for token in tokenizer.get_added_vocab() if token not in spelt & TOOL_CALL)
