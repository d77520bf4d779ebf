"""Small real parts for the tests: a random Qwen3-VL with its processor, problems, and checkpoint folders."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from tests.stand_in import StandIn
from tests.teacher import TeacherEngine
from tests.tiny_backbones import BACKBONES, OUTSIDE
from vlprm.answers import is_correct
from vlprm.builtin.make import make_model, make_processor, make_tokenizer
from vlprm.builtin.size import Size
from vlprm.data.dataset import tree_row, write_dataset
from vlprm.labels.fusion import fuse_tree
from vlprm.labels.judge_reliability import TreeEvidence
from vlprm.labels.sources import Reliability
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import load_inputs
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.schema import Problem, Region, Step
from vlprm.steps import parse_step
from vlprm.tasks import TASKS, Tasks
from vlprm.tasks.synthetic import truthful
from vlprm.zoom.execute import View, execute_zoom

os.chdir(Path(__file__).parents[1])  # tests name commands and recipes relative to the root, wherever pytest was started
os.environ["COLUMNS"] = "120"  # and read tables at a fixed width, without colours
for variable in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE"):
    os.environ.pop(variable, None)

TINY = Size(
    text_width=64, text_layers=2, text_heads=2, kv_heads=1, text_mlp=96, vision_width=32, vision_heads=2, vision_mlp=64
)


def solved(problem: Problem, tasks: Tasks = TASKS) -> list[Step]:
    """The truthful steps of a problem, with zooms not executed."""
    return [parse_step(text) for text in tasks[problem.task].solve(problem.meta["scene"], truthful)]


def view_of(size: tuple[int, int]) -> View:
    """A view of a whole image of that size at its original scale."""
    return View(Region(0, 0, *size), size)


def executed(step: Step, size: tuple[int, int] = (512, 512)) -> Step:
    """The step; if it is a zoom that is not refused, with its region of an image of that size."""
    shown = execute_zoom(step, "relative_1000", [view_of(size)]) if step.kind == "zoom" else step
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
    CheckpointConfig().save(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory, problems: list[Problem]) -> Callable[[str], Path]:
    """The folder of a tiny random backbone of a family, created on first use."""
    texts = ["\n\n".join(s.text for s in solved(p)) + f"\nuser\nassistant\n{p.question}\n" for p in problems]

    @cache
    def made(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        {**BACKBONES, **OUTSIDE}[family](folder, texts)
        return folder

    return made


@pytest.fixture(scope="session")
def inputs(backbone: Path) -> InputBuilder:
    return load_inputs(backbone)


def write_labelled_trees(path: Path) -> Path:
    """Write a dataset of ten trees of a careless teacher, labelled by its rollouts."""
    rows = []
    for i in range(10):
        problem = list(TASKS.values())[i % 5].problem("train", i)
        tree = asyncio.run(search(problem, TeacherEngine(), TreeSearchConfig(estimator="flat", solutions=2), seed=1))
        right = [is_correct(a, str(problem.answer), problem.answer_type) for _, a in tree.leaves]
        paths = [(tree.path(leaf), outcome) for (leaf, _), outcome in zip(tree.leaves, right, strict=True)]
        labels = fuse_tree(TreeEvidence.of(tree), paths, "bayes", Reliability())
        nodes = tuple(dataclasses.replace(n, label=label) for n, label in zip(tree.nodes, labels, strict=True))
        rows.append(tree_row(problem, dataclasses.replace(tree, nodes=nodes), right, {}))
    write_dataset(path, rows)
    return path


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled_trees(tmp_path_factory.mktemp("data") / "d.parquet")


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests start first, so that no process works alone at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Sums depend on the number of threads, and the processes of the tests share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> Path:
    """A reward model on the tiny backbone whose step head has random weights."""
    folder = tmp_path_factory.mktemp("prm")
    checkpoint = load_reward_model(backbone, new_head="step")
    torch.nn.init.normal_(checkpoint.model.score.weight, std=0.5, generator=torch.Generator().manual_seed(0))
    save_reward_model(checkpoint, folder, CheckpointConfig(head="step"))
    return folder
