"""The model card of a trained reward model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from huggingface_hub import metadata_load

from train.reward import curves
from train.reward.config import PrmConfig
from train.reward.progress import FILE_NAME
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.image_limits import Limits, described
from vlprm.model.loading import BUILTIN, checkpoint_folder
from vlprm.runs.folder import environment, json_object

CARD = """---
library_name: vlprm
license: {license}
pipeline_tag: image-text-to-text
tags: [process-reward-model, vision-language]
---

# A step-reward model

Scores each step of a solution to a question about images: the probability that the step is correct.

```python
import vlprm

steps = vlprm.split_steps("[perception] row 1: red none blue\\n\\n[answer] 1")
rewards = vlprm.score(vlprm.load_reward_model("{folder}"), [(vlprm.example_problem(), steps)])
```

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


def model_card(checkpoint_config: CheckpointConfig, limits: Limits | None, config: str, run: Path) -> str:
    """The text of the card: config and provenance, and the last held-out metrics of the run folder."""
    said = checkpoint_config.provenance
    return CARD.format(
        folder=run.name, head=checkpoint_config.head, aggregation=checkpoint_config.aggregation,
        template=checkpoint_config.prompt_template, dialect=checkpoint_config.dialect, images=described(limits, limits),
        backbone=_name(said["backbone"]), command=said["command"], data=said["data_hash"], seed=said["seed"],
        metrics=_last_metrics(run) + _auroc_interval(run), license=said.get("license", "unknown"), config=config,
        versions=", ".join(f"{k} {v}" for k, v in environment(seed=said["seed"])["packages"].items()),
    )  # fmt: skip


def _last_metrics(run: Path) -> str:
    lines = [json.loads(line) for line in (run / FILE_NAME).read_text().splitlines()]
    shown = [line for line in lines if "eval_step_auroc" in line]
    if not shown:
        return "No metrics were measured."
    names = [name for name in shown[-1] if name.startswith(("eval_step_", "eval_found_"))]
    return "\n".join(f"- {name.removeprefix('eval_')}: {shown[-1][name]:.4g}" for name in names)


def _auroc_interval(run: Path) -> str:
    """The interval of the AUROC, and the numbers of steps and problems behind it."""
    known = json_object(run / curves.FILE_NAME).get("auroc")
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
    dataset, run = Path(config.dataset.name), Path(config.run.name)
    return replace(config, dataset=dataset, run=run, backbone=_name(config.backbone))
