"""The model card of a trained reward model."""

from __future__ import annotations

import json
from pathlib import Path

from train.reward.progress import FILE_NAME
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.image_limits import Limits, described
from vlprm.runs.folder import environment

CARD = """---
library_name: vlprm
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
        backbone=said["backbone"], command=said["command"], data=said["data_hash"], seed=said["seed"],
        metrics=_last_metrics(run), config=config,
        versions=", ".join(f"{k} {v}" for k, v in environment(seed=said["seed"])["packages"].items()),
    )  # fmt: skip


def _last_metrics(run: Path) -> str:
    lines = [json.loads(line) for line in (run / FILE_NAME).read_text().splitlines()]
    shown = [line for line in lines if "eval_step_auroc" in line]
    if not shown:
        return "No metrics were measured."
    names = [name for name in shown[-1] if name.startswith(("eval_step", "eval_found"))]
    return "\n".join(f"- {name.removeprefix('eval_')}: {shown[-1][name]:.3f}" for name in names)
