"""Published reward models, each asked in its own protocol.

    prm = load("qwen_vl_prm@runs/Qwen-VL-PRM-7B")       # PROTOCOL@CHECKPOINT, wherever a reward model is named
    prm = load("ob11/Qwen-VL-PRM-7B")                   # a released name has its protocol
    rewards = vlprm.score(prm, [(problem, solution.steps)])

A protocol is one file of this package. Its long prompt is not part of this project: it is read from the checkpoint's
folder, where the checkpoint's own code or a public file has it, and is checked by its hash (docs/published_models.md).
"""

from __future__ import annotations

from vlprm.published import mm_prm, perceval, qwen_vl_prm, ursa_rm, visual_prm
from vlprm.published.protocol import Protocol, Verifier

PROTOCOLS: dict[str, Protocol] = {
    "qwen_vl_prm": qwen_vl_prm.PROTOCOL,
    "visual_prm": visual_prm.PROTOCOL,
    "mm_prm": mm_prm.PROTOCOL,
    "ursa_rm": ursa_rm.PROTOCOL,
}

VERIFIERS: dict[str, Verifier] = {"perceval": perceval.VERIFIER}  # they write their verdict, and are served
