"""The shipped weights load, are small, solve and score as recorded, and say how they were made."""

import asyncio
import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from tests.conftest import solved
from vlprm.answers import is_correct
from vlprm.model.loading import checkpoint_folder, load_policy
from vlprm.policy import Request
from vlprm.policy.local import LocalPolicy
from vlprm.policy.rollout import rollouts
from vlprm.tasks import TASKS
from vlprm.zoom.execute import executed_steps

NAMES = ("builtin/policy", "builtin/backbone")
PROBE = [family.problem("validation", i) for family in TASKS.values() for i in range(4)]


def log_likelihood(name: str) -> float:
    """Mean log-probability per token of the truthful solutions of the probe problems under a model."""
    checkpoint = load_policy(name)
    rows = [checkpoint.inputs.row(p, executed_steps(p, [s.text for s in solved(p)]), closed=True) for p in PROBE]
    batch = checkpoint.inputs.batch(rows)
    with torch.inference_mode():
        log_p = checkpoint.model(**batch).logits[:, :-1].log_softmax(-1)
    chosen = log_p.gather(2, batch["input_ids"][:, 1:, None]).squeeze(2)
    written = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    for b, row in enumerate(rows):
        written[b, : len(row.ids)] = torch.tensor(row.written_in) >= 0
    return float(chosen[written[:, 1:]].mean())


def test_the_weights_fit_their_budget() -> None:
    sizes = [path.stat().st_size for path in Path(str(files("vlprm.builtin"))).rglob("*.safetensors")]
    assert len(sizes) == 2
    assert sum(sizes) <= 16 * 2**20


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_say_how_they_were_made(name: str) -> None:
    provenance = json.loads((checkpoint_folder(name) / "vlprm.json").read_text())["provenance"]
    assert {"command", "seed", "data_hash", "hours"} <= set(provenance)


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_score_as_recorded(name: str) -> None:
    recorded = json.loads((checkpoint_folder(name) / "vlprm.json").read_text())["provenance"]["probe_log_likelihood"]
    assert log_likelihood(name) == pytest.approx(recorded, abs=1e-3)


def test_the_policy_solves_some_and_fails_some() -> None:
    """The demo needs right and wrong solutions, all of them in the step format."""
    engine = LocalPolicy(load_policy("builtin/policy"))

    async def sample():  # type: ignore[no-untyped-def]
        return await asyncio.gather(*(rollouts(engine, Request(p, (), 4, p.id, 0, max_tokens=160)) for p in PROBE))

    right = wrong = 0
    for problem, solutions in zip(PROBE, asyncio.run(sample()), strict=True):
        outcomes = [is_correct(s.answer, str(problem.answer), problem.answer_type) for s in solutions]
        right += outcomes.count(True)
        wrong += outcomes.count(False)
    assert right > 0
    assert wrong > 0
    assert right + wrong >= 0.9 * 4 * len(PROBE)
