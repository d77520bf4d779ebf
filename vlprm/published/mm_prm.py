"""MM-PRM-8B (arXiv 2505.13427; ModalMinds/MM-PRM, commit b914fd6): the token <prm> follows each step, and the LM head's
logits of Yes and No are compared there.

The public reader is `batch_prm` in internvl/model/internvl_chat/modeling_internvl_chat.py, called by
eval/prm/evaluate_*_prm.py. Question and steps are the assistant's turn, after an empty user turn. It reads one image,
cut into up to 6 tiles and a thumbnail. The authors report the mean odds as the best of its eight aggregations.
"""

from __future__ import annotations

from vlprm.published.protocol import ASKED, USER, Protocol, PublishedText
from vlprm.published.visual_prm import CONVERT

PROTOCOL = Protocol(
    hub=("Cierra0506/MM-PRM-8B",),
    prompt=PublishedText(
        "ModalMinds/MM-PRM",
        "b914fd66c8efb3d6667610fba1f8fd1e55cde095",
        "internvl/conversation.py",
        "the system message of internvl2_5",
        "bdb4d179c4c458dd9bd365588d3fd15aba0f2b755b4b192383416f610ad3396e",
    ),
    model_type="internvl",
    lead="<|im_start|>system\n{prompt}<|im_end|>\n" + USER + ASKED,
    image="{image}\n",
    first="Question: {question}\nProcess: {step}<prm>",
    later="{step}<prm>",
    verdicts=("Yes", "No"),
    mark="<prm>",
    marks=("<image>",),
    images=(1, 1),
    tiles={"crop_to_patches": True, "min_patches": 1, "max_patches": 6},
    aggregation="mean_odds",
    code_of_its_own=CONVERT,
    licence="MIT",
)
