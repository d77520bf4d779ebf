"""The model card of a trained reward model."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from huggingface_hub import metadata_load

from train.loop.progress import METRICS_FILE
from train.reward import curves
from train.reward.config import PrmConfig
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.families import Family
from vlprm.model.image_limits import Limits, described
from vlprm.model.loading import BUILTIN, checkpoint_folder
from vlprm.model.lora import holds_adapters
from vlprm.prompts import TEMPLATES, verdict_text
from vlprm.runs.folder import environment, json_object

CARD = """---
library_name: vlprm
license: {license}
pipeline_tag: image-text-to-text
tags: [process-reward-model, vision-language]
{base}---

# A step-reward model

Scores each step of a solution to a question about images: the probability that the step is correct.

```python
import vlprm

steps = vlprm.split_steps("[perception] row 1: red none blue\\n\\n[answer] 1")
rewards = vlprm.score(vlprm.load_reward_model("{folder}"), [(vlprm.example_problem(), steps)])
```

{alone}

- head: {head}; by default, a solution's reward is the {aggregation} of its step rewards
- prompt template {template}, boxes in {dialect}, {images}
- trained from {backbone} by `{command}`, on data with hash {data}, seed {seed}

## Metrics of held-out steps, against their labels

{metrics}

## Config

```yaml
{config}```

Versions: {versions}
"""

# The text is tokenized as vlprm does it: a step is read at the token with its last character.
ALONE = """With transformers alone:

```py
from pathlib import Path
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoModel, AutoProcessor

folder, question, images = "{folder}", "How many red cells are there?", [Image.open("grid.png").convert("RGB")]
steps = ["[perception] row 1: red none blue", "[answer] 1"]
processor, model = AutoProcessor.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
files = [safe_open(file, "pt") for file in Path(folder).glob("model*.safetensors")]
head = next(file.get_tensor("{weight}") for file in files if "{weight}" in file.keys()).float()
content = [{{"type": "image"}}] * len(images) + [{{"type": "text", "text": {user}.format(question=question)}}]
chat = [{{"role": "user", "content": content}}]
text = processor.apply_chat_template(chat, add_generation_prompt=True{options}) + "\\n\\n".join(steps) + "\\n\\n"
solution = processor.tokenizer("\\n\\n".join(steps) + "\\n\\n", add_special_tokens=False, return_offsets_mapping=True)
lasts = [len("\\n\\n".join(steps[: n + 1])) - 1 for n in range(len(steps))]  # the last character of each step
ends = [next(n for n, (_, end) in enumerate(solution["offset_mapping"]) if end > last) for last in lasts]
batch = processor(text=[text], images=images, add_special_tokens=False, return_tensors="pt")
with torch.no_grad():
    states = model(**batch).last_hidden_state[0, -len(solution["input_ids"]) :]
rewards = (states[ends] @ head[:3].T).softmax(-1)[:, 0].tolist()  # correct, perception error, reasoning error
```"""


def model_card(
    checkpoint_config: CheckpointConfig, family: Family, limits: Limits | None, config: str, run: Path
) -> str:
    """The text of the card: config and provenance, and the last held-out metrics of the run folder."""
    said = checkpoint_config.provenance
    on_hub = re.fullmatch(r"[\w-]+/[\w.-]+", said["backbone"]) and not Path(said["backbone"]).exists()
    return CARD.format(
        folder=run.name, head=checkpoint_config.head, aggregation=checkpoint_config.aggregation,
        template=checkpoint_config.prompt_template, dialect=checkpoint_config.dialect, images=described(limits, limits),
        base=f"base_model: {said['backbone']}\n" if on_hub and said["backbone"] not in BUILTIN else "",
        alone=alone(checkpoint_config, family, run), license=said.get("license", "unknown"),
        backbone=_name(said["backbone"]), command=said["command"], data=said["data_hash"], seed=said["seed"],
        metrics=_last_metrics(run) + _auroc_interval(run), config=config,
        versions=", ".join(f"{k} {v}" for k, v in environment(seed=said["seed"])["packages"].items()),
    )  # fmt: skip


def alone(checkpoint_config: CheckpointConfig, family: Family, run: Path) -> str:
    """How to read the rewards with transformers alone."""
    if holds_adapters(run):
        return "This folder holds adapters; `vlprm merge` makes a full model, which transformers loads."
    if checkpoint_config.head == "verdict":
        question = verdict_text(checkpoint_config.verdict_template, checkpoint_config.verdicts)
        return (
            f"With transformers alone: load `AutoModelForImageTextToText`, ask `{question}` after each step, and"
            " compare the next token's probabilities of these two."
        )
    if checkpoint_config.head == "implicit":
        return (
            "With transformers alone: load `AutoModelForImageTextToText` from this folder and from its reference"
            f" ({_name(checkpoint_config.provenance['reference'])}). The log-odds of a step are"
            f" {checkpoint_config.beta:g} times the difference of the two log-likelihoods of all that is written up to"
            " its end."
        )
    if checkpoint_config.provenance.get("surprise"):
        return "Its head also reads how unlikely a step is (`surprise`), which other programs do not compute."
    if checkpoint_config.provenance.get("lookback"):
        return "Its head also reads the attention on images (`lookback`), which other programs do not compute."
    return ALONE.format(
        folder=run.name,
        weight=f"{family.stored_head}.weight",
        user=json.dumps(TEMPLATES[checkpoint_config.prompt_template]),
        options="".join(f", {name}={value!r}" for name, value in family.template.items()),
    )


def _last_metrics(run: Path) -> str:
    lines = [json.loads(line) for line in (run / METRICS_FILE).read_text().splitlines()]
    shown = [line for line in lines if "eval_step_auroc" in line]
    if not shown:
        return "No metrics were measured."
    names = [name for name in shown[-1] if name.startswith(("eval_step_", "eval_found_", "eval_value_"))]
    return "\n".join(f"- {name.removeprefix('eval_')}: {shown[-1][name]:.4g}" for name in names)


def _auroc_interval(run: Path) -> str:
    """The interval of the AUROC, and the numbers of steps and problems behind it."""
    known = json_object(run / curves.CURVES_FILE).get("auroc")
    if not known:
        return ""
    interval = "{:.3f} to {:.3f}".format(*known["ci"]) if known["ci"] else "not known"
    counts = f"{known['steps']} steps ({known['wrong']} wrong) of {known['problems']} problems"
    return f"\n- 95% interval of step_auroc over problems: {interval}; {counts}"


def license_of(backbone: str) -> str:
    """The licence in the backbone's own card, which holds for what is made from it."""
    if backbone in BUILTIN:
        return "apache-2.0"
    card = checkpoint_folder(backbone) / "README.md"
    return str((metadata_load(card) or {}).get("license", "unknown")) if card.is_file() else "unknown"


def _name(backbone: str) -> str:
    return Path(backbone).name if Path(backbone).is_dir() else backbone


def without_paths(config: PrmConfig) -> PrmConfig:
    """The config with files and folders named without the paths that they have on this machine."""
    names = _short_names(config.datasets)
    also = dict(zip(names[1:], config.also.values(), strict=True))
    run = Path(config.run.name)
    return replace(config, dataset=Path(names[0]), run=run, backbone=_name(config.backbone), also=also)


def _short_names(files: Sequence[Path]) -> list[str]:
    """The names of different files, each with as many of its last folders as tell all files apart."""
    parts = [Path(os.path.abspath(file)).parts[1:] for file in files]
    lengths = range(1, max(map(len, parts)) + 1)
    return next(names for n in lengths if len(set(names := ["/".join(of[-n:]) for of in parts])) == len(names))
