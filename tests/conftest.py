"""Small real parts for the tests: a random Qwen3-VL with its processor, problems, and checkpoint folders."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.stand_in import StandIn
from vlprm.actions import execute_zoom
from vlprm.builtin.make import Size, make_model, make_processor, make_tokenizer
from vlprm.inputs import InputBuilder
from vlprm.profile import Profile
from vlprm.schema import Problem, Step
from vlprm.steps import parse_step
from vlprm.tasks import TASKS
from vlprm.tasks.synthetic import truthful

TINY = Size(
    text_width=64, text_layers=2, text_heads=2, kv_heads=1, text_mlp=96, vision_width=32, vision_heads=2, vision_mlp=64
)


def solved(problem: Problem) -> list[Step]:
    """The truthful steps of a problem; zooms not executed."""
    return [parse_step(text) for text in TASKS[problem.task].solve(problem.meta["scene"], truthful)]


def executed(step: Step, size: tuple[int, int] = (512, 512)) -> Step:
    """The step; a zoom with the region that it shows of an image of that size, where it is not refused."""
    shown = execute_zoom(step, "relative_1000", size, size) if step.kind == "zoom" else step
    return shown if isinstance(shown, Step) else step


@pytest.fixture(scope="session")
def problems() -> list[Problem]:
    return [family.problem("train", i) for i in range(3) for family in TASKS.values()]


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory, problems: list[Problem]) -> Path:
    """A checkpoint folder of a tiny random backbone of the real classes."""
    folder = tmp_path_factory.mktemp("backbone")
    texts = ["\n\n".join(s.text for s in solved(p)) + f"\nuser\nassistant\n{p.question}\n" for p in problems]
    tokenizer = make_tokenizer(texts, 420)
    make_model(TINY, tokenizer, seed=0).save_pretrained(folder)
    make_processor(tokenizer).save_pretrained(folder)
    Profile().save(folder)
    return folder


@pytest.fixture(scope="session")
def inputs(backbone: Path) -> InputBuilder:
    from transformers import AutoProcessor

    return InputBuilder(AutoProcessor.from_pretrained(backbone), Profile())


@pytest.fixture
def servers() -> Iterator[Callable[[], StandIn]]:
    started: list[StandIn] = []

    def start() -> StandIn:
        started.append(StandIn())
        threading.Thread(target=started[-1].serve_forever, args=(0.01,), daemon=True).start()
        return started[-1]

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(servers: Callable[[], StandIn]) -> StandIn:
    return servers()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(2)
