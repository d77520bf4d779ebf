"""Ask a server which of two tokens comes next: the request's fields, and the probability in its answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vlprm.serving.client import Message

TOP = 20  # log-probabilities to ask for, for servers that cannot list given ids


def asked_for(ids: Sequence[int], goes_on: bool = False) -> dict[str, Any]:
    """The fields of a chat request for the log-probabilities of these ids, at the start of a turn, or, if the last turn
    `goes_on`, at its end."""
    # vLLM lists the given ids whatever their rank. Ids, not texts, because two tokens may have the same text.
    listed = {"logprob_token_ids": list(ids), "return_tokens_as_token_ids": True}
    form = (
        {"continue_final_message": True, "add_generation_prompt": False} if goes_on else {"add_generation_prompt": True}
    )
    return {"max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": TOP, **listed, **form}


def first_of_two(choice: Message, ids: Sequence[int]) -> float | None:
    """The probability of the first of two ids, normalised over both. None if the server lists only one of them: the
    other's probability is unknown, not 0."""
    try:
        listed = choice["logprobs"]["content"][0]["top_logprobs"]
        log_p = {entry["token"]: float(entry["logprob"]) for entry in listed}
        first, second = (log_p[f"token_id:{i}"] for i in ids)
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    found = 0.5 + 0.5 * math.tanh((first - second) / 2)  # a logistic that cannot overflow
    return found if math.isfinite(found) else None
