"""A real vLLM on the CPU serves reward models with the scores of this process: on the built-in backbone, and on a tiny
Qwen2.5-VL whose tokenizer joins full stops and line breaks, as the real one does."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from eval.parity import gaps, main
from eval.step_scores.config import ParityConfig
from tests.conftest import executed, solved
from tests.stored import pool_record, write_run
from tests.tiny_backbones import qwen3_vl_with_tools
from tests.vllm_server import LIMIT, vllm
from vlprm.model.checkpoint_config import Head
from vlprm.model.loading import Checkpoint
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.schema import Problem, Region, Solution, Step
from vlprm.scoring.open import open_served_scorer
from vlprm.scoring.tree import StepScore, score_steps
from vlprm.serving.config import ModelConfig, ServerConfig
from vlprm.steps import parse_step
from vlprm.tasks import TASKS

pytestmark = [pytest.mark.server, pytest.mark.timeout(LIMIT)]

BOUND = 1e-4
PROBLEMS = [family.problem("test", i) for i in range(4) for family in TASKS.values()]
SOLUTIONS: list[tuple[Problem, list[Step]]] = [(p, [executed(step) for step in solved(p)]) for p in PROBLEMS]
FLAGS: dict[Head, tuple[str, ...]] = {"step": ("--runner", "pooling"), "verdict": ()}


@dataclasses.dataclass(frozen=True)
class Served:
    folder: Path
    checkpoint: Checkpoint
    server: ServerConfig


@contextmanager
def serve(backbone: str | Path, head: Head, make: pytest.TempPathFactory, std: float) -> Iterator[Served]:
    """Serves a new reward model as configs/server/parity.yaml says; a step head has all of its outputs."""
    outputs = ("value", "concentration") if head == "step" else None
    checkpoint = load_reward_model(backbone, new_head=head, extra_outputs=outputs)
    if head == "step":
        torch.nn.init.normal_(checkpoint.model.score.weight, std=std, generator=torch.Generator().manual_seed(1))
    folder = make.mktemp(head)
    save_reward_model(checkpoint, folder, checkpoint.config)
    with vllm(folder, make.mktemp("vllm"), "prm", *FLAGS[head]) as server:
        yield Served(folder, checkpoint, server)


@pytest.fixture(scope="module", params=["step", "verdict"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve("builtin/backbone", request.param, tmp_path_factory, std=0.05) as served:
        yield served


def scored(model: Served, solutions: list[tuple[Problem, list[Step]]]) -> list[list[StepScore | None]]:
    async def ask() -> list[list[StepScore | None]]:
        async with open_served_scorer(ModelConfig(str(model.folder), model.server)) as scores:
            return await scores.score_steps(solutions)

    return asyncio.run(ask())


def test_served_scores_are_those_of_this_process(model: Served) -> None:
    """The solutions are whole, end with a crop, or continue after one."""
    ends_with_crop = [(p, steps[: k + 1]) for p, steps in SOLUTIONS for k, s in enumerate(steps) if s.region]
    assert len(ends_with_crop) >= 2
    solutions = SOLUTIONS + ends_with_crop
    own, served = score_steps(model.checkpoint, solutions), scored(model, solutions)
    found = gaps(own, served)
    print(model.checkpoint.config.head, found)
    assert found.no_results == 0
    assert found.largest < BOUND
    rewards = [s.correct for scores in own for s in scores]
    assert max(rewards) - min(rewards) > 100 * BOUND, "equal scores would hide a wrong place"
    perception = [[s.perception for scores in all_scores for s in scores if s] for all_scores in (own, served)]
    assert perception[0] == pytest.approx(perception[1], abs=BOUND)


CALL = (
    "The print is small.\n<tool_call>\n"
    '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 500, 500], "label": "print", "img_idx": 0}}'
    "\n</tool_call>"
)


@pytest.mark.parametrize("head", ["step", "verdict"])
def test_tool_calls_are_read_alike(
    head: Head, tmp_path: Path, problems: list[Problem], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Tool calls that show a crop, and refused ones; both prompts declare the tool."""
    qwen3_vl_with_tools(tmp_path, [CALL, *(step.text for problem in problems for step in solved(problem))])
    zoom, told = Step("zoom", CALL, Region(0, 0, 256, 256)), Step("zoom", CALL, told="duplicate: look elsewhere")
    said = parse_step("So it says 7.")
    solutions = [(p, steps) for p in PROBLEMS[:8] for steps in ([said, zoom], [zoom, said, told], [said, zoom, said])]
    with serve(tmp_path, head, tmp_path_factory, std=1.0) as model:
        found = gaps(score_steps(model.checkpoint, solutions), scored(model, solutions))
    print(head, found)
    assert found.no_results == 0
    assert found.largest < BOUND


@pytest.mark.parametrize("head", ["step", "verdict"])
def test_steps_that_end_in_a_full_stop_are_read_alike(
    head: Head, tiny_backbone: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A step whose text the server would tokenize differently has no score, nor have the steps after it."""
    sentences = [[dataclasses.replace(s, text=f"{s.text}.") if not s.region else s for s in st] for _, st in SOLUTIONS]
    solutions = [(p, steps) for (p, _), steps in zip(SOLUTIONS, sentences, strict=True)]
    odd = (PROBLEMS[0], [parse_step("1 + 1"), parse_step("\nso 2.")])
    with serve(tiny_backbone("qwen2_5_vl"), head, tmp_path_factory, std=1.0) as model:
        assert any(model.checkpoint.inputs.text.joins(step) for step in sentences[0])
        own, served = score_steps(model.checkpoint, solutions), scored(model, [*solutions, odd])
    before, split_otherwise = served.pop()
    assert before is not None
    assert split_otherwise is None
    found = gaps(own, served)
    print(head, found)
    assert found.no_results == 0
    assert found.largest < BOUND


def test_the_command_measures_stored_candidates(
    model: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pools = [
        (problem, [Solution(problem.id, tuple(steps[:cut]), None, "length", 1) for cut in (1, len(steps))])
        for problem, steps in SOLUTIONS[:10]
    ]
    write_run(tmp_path / "pools", [pool_record(at, *pool) for at, pool in enumerate(pools)])
    config = ParityConfig(ModelConfig(str(model.folder), model.server, "cpu"), tmp_path / "pools", problems=8)
    main(config)
    expected = sum(1 + len(steps) for _, steps in SOLUTIONS[:8])
    assert f"over {expected} steps; 0 steps without a result" in capsys.readouterr().out
    with pytest.raises(ValueError, match="is above the bound of 1e-12"):
        main(dataclasses.replace(config, bound=1e-12))


def test_another_folder_than_the_served_one_is_found_out(model: Served, tmp_path: Path) -> None:
    """The other folder declares other image sizes."""
    other = dataclasses.replace(model.checkpoint.config, max_pixels=64 * 64)
    save_reward_model(model.checkpoint, tmp_path, other)
    with pytest.raises(ValueError, match=r"reads \d+ tokens where .* makes \d+; serve that folder"):
        scored(dataclasses.replace(model, folder=tmp_path), SOLUTIONS[:1])
