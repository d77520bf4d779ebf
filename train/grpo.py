"""Improve a policy by its own rollouts, with rewards for steps and for zooms; or a critic by its own critiques.

    python -m train.grpo --config configs/policy/grpo.yaml
    python -m train.grpo --config configs/policy/ps_grpo.yaml --prm runs/demo/prm
    python -m train.grpo --config configs/policy/critic.yaml
    accelerate launch --config_file configs/accelerate/multi_gpu.yaml -m train.grpo --config configs/policy/grpo.yaml

Each round samples solutions, rewards their steps, and learns from the advantages; `rounds/` in the run folder has each
round before it is learnt. The same command resumes a killed run, and reaches the weights of an uninterrupted run.
Several processes divide a round's problems, and reach the weights of one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from accelerate import PartialState

from train.loop.progress import METRICS_FILE
from train.policy import preview, processes
from train.policy.checks import check_grpo
from train.policy.grpo_config import GrpoConfig
from train.policy.learner import Learner, load_start
from train.policy.measuring import Judges, rate
from train.policy.monitors import exploited, round_metrics, star_advice
from train.policy.pages import write_page
from train.policy.rounds import NO_IDS, Rollouts, read_round, usable, write_round
from train.policy.sources import Source, source_of
from vlprm.errors import UserError
from vlprm.model.checkpoint_config import CHECKPOINT_FILE
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint, checkpoint_folder, load_inputs
from vlprm.policy import Policy
from vlprm.policy.local import LocalPolicy
from vlprm.policy.open import folders_of, open_policy, placed
from vlprm.runs.config import dump, run
from vlprm.runs.folder import DONE, open_run, timed, write_atomically
from vlprm.runs.progress import progress
from vlprm.schema import Problem
from vlprm.scoring.open import open_scorer

log = logging.getLogger(__name__)

Lines = dict[int, dict[str, Any]]  # metrics by round
JudgesOf = Callable[[], Awaitable[Judges]]
EngineOf = Callable[[], Awaitable[Policy]]
POLICY = "policy"


def main(config: GrpoConfig) -> None:
    """Run `vlprm grpo`."""
    check_grpo(config)
    config = config.with_models(placed)
    source = source_of(config)
    if config.dry_run:
        asyncio.run(describe(processes.with_own_devices(config), source))
        return
    own, of_servers = folders_of(config.models)
    rows = None if config.critiques is None else config.critiques.rows
    files = [path for path in (config.problem_file, config.validation.problem_file, rows) if path]
    # The policy is trained here even if servers sample from it.
    inputs = [*dict.fromkeys([checkpoint_folder(config.policy.checkpoint), *own, *files])]
    with PartialState().main_process_first():
        open_run(config.run, dump(config), config.seed, inputs, [f for f in of_servers if f not in inputs])
    if (config.run / DONE).exists():
        log.info("%s is already trained", config.run)
        return
    with timed(config.run, "grpo") if processes.is_main() else nullcontext():
        asyncio.run(train(processes.with_own_devices(config), source))
        processes.wait()


async def train(config: GrpoConfig, source: Source) -> None:
    """All rounds that are left, then the policy's folder."""
    learner = Learner(config, load_trained(config))
    learner.load(config.run)
    lines = metric_lines(config.run)
    validation = source.validation()
    async with opened(config, source, learner) as judges_of:
        with progress("rounds", config.rounds, learner.round) as reached:
            while learner.round < config.rounds:
                number = learner.round
                lines[number] = await one_round(config, source, learner, judges_of, validation, lines)
                if processes.is_main():
                    write_lines(config.run, lines)
                    if learner.round % config.checkpoint_every == 0:
                        learner.save(config.run)
                reached(learner.round)
        measured = await source.validate(validation, await judges_of())
        lines[learner.round] = {"round": learner.round, **measured}
    if not any(line.get("learn_updates") for line in lines.values()):
        raise UserError(
            f"{config.run}: no round had a solution with an advantage, so nothing was learnt; see the exclusions in"
            f" {METRICS_FILE}, and give other terms or other problems"
        )
    if processes.is_main():
        finish(config, source, learner, lines)


async def one_round(
    config: GrpoConfig,
    source: Source,
    learner: Learner,
    judges_of: JudgesOf,
    validation: list[Problem],
    lines: Lines,
) -> dict[str, Any]:
    """Sample, reward, store and learn a round; its line of metrics. What is already stored is not done again.
    UserError if the policy exploits its reward."""
    started, number = time.time(), learner.round
    line = {"round": number, **{k: v for k, v in lines.get(number, {}).items() if k.startswith("validation_")}}
    if validation and number % config.validation.every == 0 and len(line) == 1:
        line |= await source.validate(validation, await judges_of())
        earlier = [lines[k] for k in sorted(lines) if k < number]
        if said := exploited([*earlier, line], config.validation.fall, source.advice):
            if processes.is_main():
                learner.save(config.run)
                save_policy(config, learner)
            raise UserError(f"{config.run}: {said}")
    known = processes.from_main(lambda: read_round(config.run, number))
    if known is None:
        known = await rolled_out(config, source, await judges_of(), number)
        if processes.is_main():
            write_round(config.run, number, known)
    line |= round_metrics(known, config.terms)
    if number == 0 and (said := star_advice(config, line.get("per_first_step", 2.0))):
        log.warning("%s", said)
    sampled = time.time()
    line |= {f"learn_{name}": value for name, value in learner.learn(known, source.problem).items()}
    line |= {"sample_seconds": round(sampled - started, 2), "learn_seconds": round(time.time() - sampled, 2)}
    shown = ("right", "all_steps_right", "reward", "steps", "zooms", "learn_kl", "learn_grad_norm")
    log.info("round %d  %s", number, " ".join(f"{name} {line[name]:.3g}" for name in shown if name in line))
    return line


async def rolled_out(config: GrpoConfig, source: Source, judges: Judges, number: int) -> Rollouts:
    """The rewarded rollouts of a round. UserError if nothing can be learnt from any of its problems."""
    problems, unusable = usable(processes.share(source.ids(number)), source.problem, judges.inputs)
    found = await source.sample(problems, judges, number)
    own, refused = await rate(found, problems, judges)
    counts = processes.summed({"used": len(problems), "unusable": unusable, "refused": refused})
    if counts["unusable"]:
        log.warning("round %d: %d of its problems cannot be used", number, counts["unusable"])
    if not counts["used"]:
        raise UserError(f"round {number}: none of its problems can be used; correct the problems")
    if counts["refused"]:
        log.warning("round %d: the reward model refused %d of %d problems", number, counts["refused"], counts["used"])
    if counts["refused"] == counts["used"]:
        raise UserError(f"round {number}: the reward model refused all of its problems; give it problems that it reads")
    known = in_order(source.ids(number), processes.everything(own))
    if {one.excluded for of in known for one in of} == {NO_IDS}:
        raise UserError(
            "the servers return no token ids with their log-probabilities; start them as configs/policy/served.yaml"
            " shows"
        )
    source.refuse_useless(known, number)
    return known


def in_order(ids: Sequence[str], known: Rollouts) -> Rollouts:
    """The groups in the order of their problems' ids."""
    of_problem = {of[0].trajectory.problem_id: of for of in known}
    return [of_problem[name] for name in ids if name in of_problem]


def load_trained(config: GrpoConfig) -> Checkpoint:
    """The policy or the critic to train, with the zoom limits of the run."""
    loaded = load_start(config)
    return Checkpoint(loaded.model, limited(loaded.inputs, config))


def limited(inputs: InputBuilder, config: GrpoConfig) -> InputBuilder:
    """The policy's inputs with the zoom limits of the run."""
    given = {"max_zooms": config.rollouts.max_zooms, "on_refusal": config.rollouts.on_refusal}
    zoom = dataclasses.replace(inputs.config.zoom, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    if zoom == inputs.config.zoom:
        return inputs
    folder = checkpoint_folder(config.policy.checkpoint)
    return load_inputs(folder, dataclasses.replace(inputs.config, zoom=zoom))


@asynccontextmanager
async def opened(config: GrpoConfig, source: Source, learner: Learner) -> AsyncIterator[JudgesOf]:
    """A function that returns what samples and measures with the learner's current weights."""
    async with AsyncExitStack() as stack:
        scorer = await stack.enter_async_context(open_scorer([config.prm])) if config.prm else None
        engine_of = await stack.enter_async_context(served(config, learner)) if config.policy.is_served else None
        refining = config.critiques and config.critiques.policy
        refiner = await stack.enter_async_context(open_policy(refining)) if refining else None

        async def judges() -> Judges:
            # A new engine in this process keeps nothing that older weights computed.
            engine = LocalPolicy(learner.checkpoint) if engine_of is None else await engine_of()
            return Judges(engine, scorer, source.tasks, learner.inputs, config, learner.checkpoint, refiner)

        yield judges


@asynccontextmanager
async def served(config: GrpoConfig, learner: Learner) -> AsyncIterator[EngineOf]:
    """A function that returns the served policy, once all servers have the learner's current weights."""
    async with open_policy(config.policy) as engine:
        from train.policy.sync import WeightSync  # needs the extra `server`, which opening a served policy has checked

        sync = WeightSync(config.policy.server)
        sent = -1

        async def current() -> Policy:
            nonlocal sent
            if config.dry_run:  # the servers have the first weights, and a plan writes nothing
                return engine
            version = f"{config.run.name}-{learner.round}"
            if sent != learner.round:
                if processes.is_main():
                    await sync.send(save_policy(config, learner), version)
                processes.wait()
                sent = learner.round
            await sync.check(version)  # a server that was restarted has its first weights again
            return engine

        try:
            yield current
        finally:
            await sync.close()


def save_policy(config: GrpoConfig, learner: Learner) -> Path:
    """Write the policy's folder. `vlprm.json`, written last, says that it is complete."""
    folder = config.run / POLICY
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    learner.checkpoint.model.save_pretrained(folder)
    inputs = learner.inputs
    inputs.processor.save_pretrained(folder)
    provenance = {
        "command": f"python -m train.grpo --config {config.run.name}/config.yaml",
        "policy": config.policy.checkpoint,
        "reward_model": config.prm.checkpoint if config.prm else None,
        "terms": [term.reward for term in config.terms],
        "rounds": learner.round,
        "seed": config.seed,
        **({"critiques": True} if config.critiques else {}),
    }
    dataclasses.replace(inputs.config, provenance=provenance).save(folder)
    return folder


def metric_lines(folder: Path) -> Lines:
    """The stored metrics by round. A line that a kill cut short is dropped."""
    path = folder / METRICS_FILE
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return {line["round"]: line for line in map(json.loads, lines)}


def write_lines(folder: Path, lines: Lines) -> None:
    """Write the metrics of all rounds."""
    write_atomically(folder / METRICS_FILE, "".join(json.dumps(lines[k]) + "\n" for k in sorted(lines)))


def finish(config: GrpoConfig, source: Source, learner: Learner, lines: Lines) -> None:
    """Write the policy, the metrics and the page, and mark the run as done."""
    write_lines(config.run, lines)
    learner.save(config.run)
    save_policy(config, learner)
    write_page(config.run, [lines[k] for k in sorted(lines)], source.problem, learner)
    write_atomically(config.run / DONE, json.dumps({"rounds": learner.round}) + "\n")
    log.info("wrote %s", config.run / POLICY)


async def describe(config: GrpoConfig, source: Source) -> None:
    """Print the config, the size of a round, and one solution with its advantages, from the first round's rollouts."""
    learner = Learner(config, load_trained(config))
    async with opened(config, source, learner) as judges_of:
        judges = await judges_of()
        known = await rolled_out(config, source, judges, 0)
    if not processes.is_main():
        return
    print(dump(config))
    print(preview.report(known, source.problem, learner.inputs, config))


if __name__ == "__main__":
    run(main, GrpoConfig)
