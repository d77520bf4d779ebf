"""URSA-RM-8B (arXiv 2501.04686; URSA-MATH/URSA-MATH, commit c4e30ff): the token ` и` follows each step, and a linear
layer of one output reads the state there; its logistic is the reward.

The public reader is inference/prm_infer_score.py. It puts the token after the last visible character before the next
`Step k`, and before `†Answer:`; here, it follows each step of the solution, or stands before `†Answer:` in it. That
script counts 575 image tokens, whatever the image; the places here are those of the mark. It takes the minimum or the
mean over steps. The released folder has classes of its own: DeepSeek-VL's hybrid vision tower on a Qwen2 model.
"""

from __future__ import annotations

from vlprm.model.families import Family
from vlprm.published.protocol import USER, Protocol, PublishedText
from vlprm.zoom.boxes import NO_DIALECT

PROTOCOL = Protocol(
    hub=("URSA-MATH/URSA-RM-8B",),
    prompt=PublishedText(
        "URSA-MATH/URSA-MATH",
        "c4e30ff78802b90054a74ae74f3c2e9fac12aa4a",
        "inference/prm_infer_score.py",
        "PROMPT",
        "cf27bb9c5aa983d3a0b9d58f9154b5493a61342256cbf5fd309669e6c7540ba9",
    ),
    model_type="deepseek_vl_hybrid",
    lead="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + USER,
    image="{image}",
    first="{prompt}{question}\n{body} и",
    later="{rest}{body} и",
    verdicts=None,
    mark=" и",
    before="†Answer:",
    marks=(),
    images=(1, 1),
    aggregation="min",
    family=Family("linear", "vision_model", "aligner", NO_DIALECT),
    code_of_its_own=(
        "its released classes are not those of transformers; give a folder with its weights under the names of"
        " transformers' DeepseekVLHybridForConditionalGeneration (Qwen2 text layers), plus score.weight and score.bias"
    ),
    licence="Apache-2.0",
)
