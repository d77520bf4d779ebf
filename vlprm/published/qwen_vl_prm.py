"""Qwen-VL-PRM-3B and -7B (VL-PRM, arXiv 2509.23250; theogbrand/vlprm, commit 27babae): each step is a user turn of one
dialogue, and the model answers + or -.

The public reader is eval/tts_eval/reward_guided_search/VisualPRMv2.py. It asks about one step per call, with + as the
answer to all earlier steps; the model is causal, so one pass gives the same scores. Its guided search then makes
P(+) ** 0.3 / tokens ** 0.6 of the score, or -1 if - is likelier, which ranks by length too; a reward here is P(+).
It reads one image, which qwen_vl_utils first resizes to multiples of 28 pixels.
"""

from __future__ import annotations

from vlprm.published.protocol import ASKED, USER, Protocol, PublishedText

PROTOCOL = Protocol(
    hub=("ob11/Qwen-VL-PRM-3B", "ob11/Qwen-VL-PRM-7B"),
    prompt=PublishedText(
        "theogbrand/vlprm",
        "27babae189bec3274494fd6080391619a59dcdd0",
        "eval/tts_eval/reward_guided_search/prompts.py",
        "PRM_SYSTEM_PROMPT_NORMAL_TOK_V2",
        "c45b74bef0d6afde015dbfa30fc2ed476fb63a5516a99a6fee6c69390911bb5f",
    ),
    model_type="qwen2_5_vl",
    lead="<|im_start|>system\n{prompt}<|im_end|>\n" + USER,
    image="<|vision_start|>{image}<|vision_end|>",
    first="### Question:\n{question}\n\n### Solution Process:\n{step}" + ASKED,
    later="+<|im_end|>\n" + USER + "{step}" + ASKED,
    verdicts=("+", "-"),
    marks=(),
    images=(1, 1),
    pixels=(256 * 28 * 28, 1280 * 28 * 28),
    rounded=True,
    aggregation="mean",
    licence="not stated in the repository; see the model card",
)
