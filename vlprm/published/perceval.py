"""Perceval-3B (arXiv 2604.24583; RUCAIBox/Perceval, commit 4ef2db6): the model reads a whole response beside the image,
thinks, and lists the wrong claims in the response's own words.

The public reader is `process_verify` in verl/utils/reward_score/hallu_token_reward_vstar.py. It asks a server once, at
temperature 0, with the image between the two lines of the user's turn, and looks for the first place of each claim in
the response; a claim that is not there is left out. There, an answer that cannot be read counts as a list without
claims; here it gives no result. The released model is asked about one image, and the zoom tool that its prompt offers
is not run.
"""

from __future__ import annotations

import re

from vlprm.published.protocol import PublishedText, Verifier

MARK, RIGHT = "<image>", "The response is correct"
_REPOSITORY, _COMMIT = "RUCAIBox/Perceval", "4ef2db64336e87e44c63f13447297ab26d03acac"
_FILE = "perceval/prompts/prompt_design.py"

_QUOTED = r'"(?:[^"\\\n]|\\.)*"|' + r"'(?:[^'\\\n]|\\.)*'"
_LIST = re.compile(rf"\[\s*(?:(?:{_QUOTED})\s*(?:,\s*(?:{_QUOTED})\s*)*,?\s*)?\]")
_ESCAPED = re.compile(r"\\(.)")


def claims(text: str) -> list[str] | None:
    """The wrong claims that an answer lists, from a Python list of strings between `<answer>` and `</answer>`; None if
    it has none that can be read."""
    _, opened, rest = text.partition("<answer>")
    said, closed, _ = rest.partition("</answer>")
    if not (opened and closed):
        return None
    if RIGHT in said:
        return []
    if not _LIST.fullmatch(said.strip()):
        return None
    return [_ESCAPED.sub(_character, quoted[1:-1]) for quoted in re.findall(_QUOTED, said)]


def _character(found: re.Match[str]) -> str:
    """The character of an escape; an unknown escape stays, as Python reads it."""
    return {"n": "\n", "t": "\t", "'": "'", '"': '"', "\\": "\\"}.get(found[1], found[0])


VERIFIER = Verifier(
    hub=("RUC-AIBOX/Perceval-3B-reward",),
    system=PublishedText(
        _REPOSITORY,
        _COMMIT,
        _FILE,
        "claude_tool_prompt",
        "a979c08aef0ee6434cf0352d3476026bc3aed1d7705c38a8d8c26b0316fd2dda",
    ),
    asked=PublishedText(
        _REPOSITORY,
        _COMMIT,
        _FILE,
        "claude_input_prompt",
        "82847ab08087508728abd397a833c42fc33da2318407fb851975ac77e3a68d05",
    ),
    mark=MARK,
    claims=claims,
    max_tokens=4096,
    licence="Apache-2.0 (code)",
)
