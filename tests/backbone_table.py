"""The table of backbones in docs/add_a_backbone.md, from what the tests prove.

python -m tests.backbone_table
"""

from __future__ import annotations

from tests.tiny_backbones import BACKBONES
from vlprm.model.families import FAMILIES, Family

PROVED = {
    "qwen2_vl": "Qwen2-VL", "qwen2_5_vl": "Qwen2.5-VL", "qwen3_vl": "Qwen3-VL", "qwen3_5": "Qwen3.5",
    "internvl": "InternVL", "gemma3": "Gemma 3", "llava_onevision": "LLaVA-OneVision",
    "perception_lm": "Perception-LM (timm)",
}  # fmt: skip


def table() -> str:
    families = [(PROVED[name], FAMILIES[name]) for name in BACKBONES]
    rows = [f"| {name} | {f.positions} | {_packs(f)} |" for name, f in families]
    return "\n".join(["| family | positions | trees in one sequence |", "|---|---|---|", *rows])


def _packs(family: Family) -> str:
    return f"no: {family.cannot_pack}" if family.cannot_pack else "yes"


if __name__ == "__main__":
    print(table())
