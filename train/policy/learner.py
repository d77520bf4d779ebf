"""Learn from a stored round: batches of packed trees, AdamW, and a checkpoint from which a killed run goes on.

Each of several processes learns from its share of the problems; their gradients are summed. The weights after a round
depend only on the weights before it and on the stored round, so a run that goes on from a checkpoint learns the stored
rounds after it again, and reaches the weights of an uninterrupted run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from train.loop.batches import model_inputs
from train.policy import processes
from train.policy.batches import NOT_INPUTS, PolicyRow, policy_batch, policy_row
from train.policy.grpo_config import GrpoConfig
from train.policy.losses import tree_policy_loss
from train.policy.model import load_packed_policy
from train.policy.rounds import Rated, Rollouts
from train.policy.trajectories import path_of
from vlprm.errors import UserError
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint, freeze, placement
from vlprm.model.packing import padded_batches
from vlprm.schema import Problem

STATE = "learner.safetensors"
MAX_NORM = 1.0
MOMENTS = ("exp_avg", "exp_avg_sq")


class Learner:
    """A policy in training, its optimizer, and the policy that it started from, for the divergence."""

    def __init__(self, config: GrpoConfig, checkpoint: Checkpoint) -> None:
        self.config, self.checkpoint = config, checkpoint
        freeze(checkpoint.model, checkpoint.inputs.family, config.freeze)
        self.trained = {name: p for name, p in checkpoint.model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(self.trained.values(), lr=config.learning_rate, weight_decay=0.0)
        self.reference = load_start(config)
        self.round = 0  # rounds that are learnt

    def learn(self, rollouts: Rollouts, problem: Callable[[str], Problem]) -> dict[str, float]:
        """Learn a round and return its measures. UserError if a number is not finite."""
        groups = [kept for of in rollouts if (kept := [one for one in of if not one.excluded])]
        parts = []
        for part in _parts(groups, self.config.updates):
            own = processes.share(part)
            rows = [row for of in own for row in rows_of(of, problem(of[0].trajectory.problem_id), self.inputs)]
            # Without a weight of the divergence, a row has a gradient only by its advantages.
            learnt = [row for row in rows if self.config.loss.kl or any(row.advantages)]
            counts = processes.summed({**totals_of(rows), "learnt": len(learnt)})
            if counts["learnt"]:  # otherwise no solution is better than another
                parts.append((self._batches(learnt), torch.tensor([counts["paths"], counts["tokens"]])))
        sums: Counter[str] = Counter()
        for batches, totals_2 in parts:
            sums.update(self._update(batches, totals_2))
        self.round += 1
        pairs = max(sums.pop("pairs", 0), 1)
        means = {name: sums.pop(name) / pairs for name in ("ratio", "clipped", "importance", "kl") if name in sums}
        return {**means, **{name: value / len(parts) for name, value in sums.items()}, "updates": len(parts)}

    @property
    def inputs(self) -> InputBuilder:
        """The builder of the policy's inputs."""
        return self.checkpoint.inputs

    def _update(self, batches: Sequence[dict[str, Tensor]], totals_2: Tensor) -> dict[str, float]:
        """One optimizer step. `totals_2`: all solutions and their tokens, also those of rows that are not learnt."""
        sums: Counter[str] = Counter()
        for batch in batches:
            log_p_N = self.log_probabilities(self.checkpoint, batch)
            placed = {name: value.to(log_p_N.device) for name, value in batch.items() if name in NOT_INPUTS}
            loss, measures = tree_policy_loss(log_p_N, placed, totals_2.to(log_p_N.device), self.config.loss)
            loss.backward()  # type: ignore[no-untyped-call]
            sums.update({"loss": loss.item(), **{name: value.item() for name, value in measures.items()}})
        sums = processes.summed(sums)
        if not math.isfinite(sums["loss"]):
            raise UserError(f"round {self.round}: the loss is {sums['loss']}; lower learning_rate, or set loss.clip")
        processes.sum_gradients(self.trained.values())
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), MAX_NORM)
        if not norm.isfinite():
            raise UserError(f"round {self.round}: the gradient is {norm.item()}; lower learning_rate")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {**sums, "grad_norm": norm.item()}

    @torch.no_grad()
    def _batches(self, rows: Sequence[PolicyRow]) -> list[dict[str, Tensor]]:
        """Batches of the rows with the log-probabilities before this round, and those of the reference."""
        made = []
        for group in padded_batches([len(row.row.ids) for row in rows], self.config.batch_tokens):
            batch = policy_batch([rows[i] for i in group], self.inputs)
            batch["reference"] = self.log_probabilities(self.reference, batch)
            if self.config.policy.is_served:  # a server's numbers differ a little from those of this process
                batch["old"] = self.log_probabilities(self.checkpoint, batch)
            made.append(batch)
        return made

    def log_probabilities(self, checkpoint: Checkpoint, batch: Mapping[str, Any]) -> Tensor:
        """The log-probabilities of the trained tokens, as they are sampled."""
        device = checkpoint.model.device
        seen = {name: value.to(device) for name, value in model_inputs(batch, NOT_INPUTS).items()}
        output = checkpoint.model(
            **seen, temperature=self.config.rollouts.temperature, banned=checkpoint.inputs.banned_ids
        )
        return output.log_p  # type: ignore[no-any-return]

    # --- checkpoints

    def save(self, run: Path) -> None:
        """Store the trained weights and the optimizer's moments, all of them or nothing."""
        tensors = {f"weight/{name}": p.detach() for name, p in self.trained.items()}
        for name, p in self.trained.items():
            state = self.optimizer.state.get(p, {})
            tensors |= {f"{moment}/{name}": state[moment] for moment in MOMENTS if moment in state}
            if "step" in state:
                tensors[f"step/{name}"] = state["step"]
        draft = run / f"{STATE}.draft"
        save_file(
            {key: value.contiguous().clone() for key, value in tensors.items()}, draft, {"round": str(self.round)}
        )
        draft.replace(run / STATE)

    def load(self, run: Path) -> None:
        """Go on from the last checkpoint of a run, if there is one."""
        path = run / STATE
        if not path.exists():
            return
        tensors = load_file(path, device=str(self.checkpoint.model.device))
        for name, p in self.trained.items():
            with torch.no_grad():
                p.copy_(tensors[f"weight/{name}"])
            if f"step/{name}" in tensors:
                state = {moment: tensors[f"{moment}/{name}"] for moment in MOMENTS}
                self.optimizer.state[p] = {"step": tensors[f"step/{name}"].cpu(), **state}
        self.round = _round_of(path)


def load_start(config: GrpoConfig) -> Checkpoint:
    """The policy or the critic from which a run starts."""
    return load_packed_policy(config.policy.checkpoint, training_device(config), config.critiques is not None)


def training_device(config: GrpoConfig) -> str:
    """The device of the policy in training, also if servers sample."""
    return placement(config.policy.device, "float32")[0]


def _round_of(path: Path) -> int:
    with safe_open(path, "pt") as file:
        return int(file.metadata()["round"])


def rows_of(kept: Sequence[Rated], problem: Problem, inputs: InputBuilder) -> list[PolicyRow]:
    """The rows of a problem's paths: one tree, or a row per path for a backbone that cannot read branches. A step
    without an advantage gets 0."""
    paths = [path_of(one.trajectory, problem, inputs) for one in kept]
    advantages = [[a or 0.0 for a in one.advantages] for one in kept]
    if not inputs.family.cannot_pack:
        return [policy_row(problem, paths, advantages, inputs)]
    return [policy_row(problem, [path], [of_path], inputs) for path, of_path in zip(paths, advantages, strict=True)]


def totals_of(rows: Sequence[PolicyRow]) -> dict[str, float]:
    """The paths of the rows and their trained tokens."""
    return {"paths": float(sum(row.paths for row in rows)), "tokens": float(sum(len(row.pairs) for row in rows))}


def _parts(groups: Sequence[Sequence[Rated]], updates: int) -> list[Sequence[Sequence[Rated]]]:
    size = max(1, math.ceil(len(groups) / updates))
    return [groups[start : start + size] for start in range(0, len(groups), size)]
