"""VisualPRM-8B and -v1.1 (arXiv 2503.10291; OpenGVLab): each step is a user turn of one dialogue, and the model answers
+ or -. All steps are read in one pass, with + after each.

The public reader is `generate_steps_with_soft_score` in the checkpoint's own code. A solution's reward is the mean of
its steps, and a step counts as correct above 0.85 in the published scores of VisualProcessBench. Images are cut into up
to 12 tiles and a thumbnail. `max_steps` of that code merges paragraphs; here, the steps of the solution are read.
"""

from __future__ import annotations

from vlprm.published.protocol import ASKED, USER, Protocol, PublishedText

CONVERT = (
    "its released folder needs its own code, which is not run here; convert it with transformers'"
    " src/transformers/models/internvl/convert_internvl_weights_to_hf.py, and give the converted folder"
)

PROTOCOL = Protocol(
    hub=("OpenGVLab/VisualPRM-8B", "OpenGVLab/VisualPRM-8B-v1_1"),
    prompt=PublishedText(
        "OpenGVLab/InternVL",
        "2410d1dbf208f0e799459aff9376e5747dbf41a2",
        "internvl_chat/tools/reasoning_data_pipeline/utils/constants.py",
        "PRM_SYSTEM_PROMPT",
        "18279fe8e6c5f76aebb619b266e665b89b2d0b1cb181b6aa3fded44d24b8fa1e",
    ),
    model_type="internvl",
    lead="<|im_start|>system\n{prompt}<|im_end|>\n" + USER + "### Question:\n",
    image="{image}\n",
    first="{question}\n\n### Solution Process:\n{step}" + ASKED,
    later="+<|im_end|>\n" + USER + "{step}" + ASKED,
    verdicts=("+", "-"),
    marks=("<image>",),
    images=(0, 64),
    tiles={"crop_to_patches": True, "min_patches": 1, "max_patches": 12},
    aggregation="mean",
    code_of_its_own=CONVERT,
    licence="MIT",
)
