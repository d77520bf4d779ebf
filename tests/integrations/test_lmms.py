"""The plug-in in a real lmms-eval, run by its own command: drawn problems as a local task and as rows of lmms-eval's
own tasks, the built-in policy, and a reward model. The installed package is built from this tree, including its entry
point."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from eval.runs.problem_sets import answer_text
from tests.docs.pages import ROOT
from vlprm.model.loading import load_policy
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.policy.local import LocalPolicy
from vlprm.schema import Problem
from vlprm.scoring.local import LocalScorer
from vlprm.search import SearchConfig, SearchResult, solve
from vlprm.tasks import TASKS

pytestmark = [pytest.mark.lmms, pytest.mark.timeout(900)]

PROBLEMS = [TASKS[name].problem("test", 0) for name in ("count_grid", "pattern", "chart")]
TASK = """
task: drawn
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {folder}/test.parquet}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function lmms_task.doc_to_visual
doc_to_text: question
doc_to_target: answer
process_results: !function lmms_task.process_results
metric_list:
- {{metric: right, aggregation: mean, higher_is_better: true}}
- {{metric: empty, aggregation: mean, higher_is_better: false}}
"""


def v_star(index: int, problem: Problem) -> dict[str, Any]:
    """A row as V* publishes it."""
    text = f"{problem.question}\n(A) {problem.answer}\n(B) none of these"
    image = {"bytes": problem.images[0]}
    return {"question_id": str(index), "category": "direct_attributes", "label": "A", "text": text, "image": image}


def mmmu(index: int, problem: Problem) -> dict[str, Any]:
    """An open question as MMMU publishes it."""
    images = {f"image_{i}": {"bytes": problem.images[0]} if i == 1 else None for i in range(1, 8)}
    asked = {"question": f"<image 1> {problem.question}", "options": "[]", "question_type": "open"}
    return {"id": f"validation_Math_{index}", **asked, "answer": problem.answer, **images}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vlprm as pip installs it, the task, and a reward model."""
    made = tmp_path_factory.mktemp("lmms")
    for name in ("vlprm", "eval", "train", "data_synth"):
        shutil.copytree(ROOT / name, made / "src" / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, made / "src")
    ran(made, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", "site", "./src")
    rows = [{"image": {"bytes": p.images[0]}, "question": p.question, "answer": p.answer} for p in PROBLEMS]
    text = datasets.Value("string")
    features = datasets.Features({"image": datasets.Image(), "question": text, "answer": text})
    datasets.Dataset.from_list(rows, features=features).to_parquet(made / "test.parquet")
    (made / "task").mkdir()
    (made / "task/drawn.yaml").write_text(TASK.format(folder=made))
    shutil.copy(ROOT / "tests/lmms_task.py", made / "task")
    checkpoint = load_reward_model("builtin/backbone", new_head="step")
    torch.nn.init.normal_(checkpoint.model.score.weight, std=0.2, generator=torch.Generator().manual_seed(0))
    save_reward_model(checkpoint, made / "prm", checkpoint.config)
    return made


def ran(folder: Path, *words: str) -> str:
    python = os.environ.get("LMMS_PYTHON")
    if python is None:
        pytest.fail("LMMS_PYTHON names no Python with lmms-eval; run `make test-lmms`")
    env = {**os.environ, "PYTHONPATH": str(folder / "site"), "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([python, *words], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def evaluated(folder: Path, out: str, task: str = "drawn", **args: Any) -> tuple[str, list[dict[str, Any]]]:
    """The output of lmms-eval, and its samples."""
    args = {"policy": "builtin/policy", "device": "cpu", **args}
    model_args = ",".join(f"{name}={value}" for name, value in args.items())
    said = ran(
        folder, "-m", "lmms_eval", "--model", "vlprm", "--model_args", model_args, "--tasks", task,
        "--include_path", "task", "--log_samples", "--output_path", out,
    )  # fmt: skip
    (samples,) = (folder / out).rglob(f"*_samples_{task}.jsonl")
    return said, [json.loads(line) for line in samples.read_text().splitlines()]


def test_a_task_gets_the_answer_that_the_method_chooses(folder: Path) -> None:
    """Texts and token counts are equal, with the problems of a unit solved concurrently."""
    said, samples = evaluated(folder, "best", reward_model="prm", method="best_of_n", n=4, unit=2)
    assert "2 of 3 requests done" in said
    asked = [Problem(f"drawn/test/{i}/1", "drawn", p.question, p.images, None, "text") for i, p in enumerate(PROBLEMS)]
    found = asyncio.run(found_here("best_of_n", asked, SearchConfig(n=4), folder / "prm"))
    assert [s["filtered_resps"] for s in samples] == [answer_text(f.chosen.solution) for f in found if f.chosen]
    assert [s["token_counts"] for s in samples] == [[{"output_tokens": f.cost.policy_sampled}] for f in found]
    assert [s["right"] for s in samples] == [
        float(s["filtered_resps"] == p.answer) for s, p in zip(samples, PROBLEMS, strict=True)
    ]
    assert "no result" not in said


async def found_here(
    method: str, asked: list[Problem], config: SearchConfig, reward_model: Path | None = None
) -> list[SearchResult]:
    policy = LocalPolicy(load_policy("builtin/policy"))
    scorer = LocalScorer(load_reward_model(reward_model)) if reward_model else None
    return [await solve(method, problem, policy, scorer, config) for problem in asked]


def test_a_solution_that_was_cut_short_is_empty_and_counted(folder: Path) -> None:
    said, samples = evaluated(folder, "cut", method="self_consistency", max_tokens=2)
    assert [(s["filtered_resps"], s["empty"]) for s in samples] == [("", 1.0)] * 3
    assert "3 of 3 requests have no result and return an empty text: length 3" in said


@pytest.mark.parametrize(
    ("task", "code", "split", "row"),
    [("vstar_bench", "vstar_bench", "test", v_star), ("mmmu_val", "mmmu", "validation", mmmu)],
)
def test_the_code_of_a_published_task_runs_on_local_rows(
    folder: Path, task: str, code: str, split: str, row: Callable[[int, Problem], dict[str, Any]]
) -> None:
    """Only the place of the rows and the task's name are changed."""
    rows = [row(i, problem) for i, problem in enumerate(PROBLEMS)]
    image, text = datasets.Image(), datasets.Value("string")
    features = datasets.Features({name: image if name.startswith("image") else text for name in rows[0]})
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / f"{task}.parquet")
    place = ran(folder, "-c", "import lmms_eval.tasks as t; print('at', *t.__path__)").split("at ")[-1].strip()
    shutil.copytree(Path(place) / code, folder / "task" / code)
    local = f"dataset_path: parquet\ndataset_kwargs: {{data_files: {{{split}: {folder}/{task}.parquet}}}}"
    for path in (folder / "task" / code).glob("*yaml"):
        read_here = re.sub(r"^dataset_path: .*$", local, path.read_text(), flags=re.MULTILINE)
        path.write_text(re.sub(r'^task: "?(\w+)"?$', r"task: \1_local", read_here, flags=re.MULTILINE))
    _, samples = evaluated(folder, task, task=f"{task}_local", method="self_consistency", n=2)
    asked = [
        Problem(f"{task}_local/{split}/{i}/1", task, sample["input"], PROBLEMS[i].images, None, "text")
        for i, sample in enumerate(samples)
    ]
    found = asyncio.run(found_here("self_consistency", asked, SearchConfig(n=2)))
    assert [s["filtered_resps"] for s in samples] == [answer_text(f.chosen.solution) for f in found if f.chosen]
    assert len(samples) == 3


CALLS = """
import io
from PIL import Image
from eval.lmms import Vlprm
from lmms_eval.api.instance import Instance

def asked(shown):
    model = Vlprm(policy="builtin/policy", method="pass_at_1", device="cpu")
    model.task_dict["t"] = {"test": [shown]}
    args = ("How many?", {}, lambda doc: [doc], 0, "t", "test")
    request = Instance("generate_until", args, 0, {"task": "t", "doc_id": 0, "repeats": 2})
    return [one.text for one in model.generate_until([request] * 2)]

torn = io.BytesIO()
Image.effect_noise((64, 64), 50).save(torn, "PNG")
for call in (
    lambda: Vlprm(policy="builtin/policy", metod="greedy"),
    lambda: Vlprm(policy="builtin/policy", n=4),
    lambda: Vlprm(policy="builtin/policy", method="pass_at_1").loglikelihood([]),
    lambda: Vlprm(policy="builtin/policy", method="pass_at_1").generate_until_multi_round([]),
    lambda: asked("clip.mp4"),
    lambda: asked(Image.open(io.BytesIO(torn.getvalue()[:200]))),
):
    try:
        print("said:", call())
    except ValueError as error:
        print("said:", error)
"""


def test_what_cannot_be_asked_is_said_in_a_sentence(folder: Path) -> None:
    said = [line.removeprefix("said: ") for line in ran(folder, "-c", CALLS).splitlines() if line.startswith("said: ")]
    assert said == [
        "unknown flag --metod; did you mean 'method'?",
        "best_of_n needs a reward model; set reward_model to a checkpoint folder of train.prm",
        "vlprm does not compute the likelihood of given texts; choose a generate_until task",
        "vlprm does not support multi-round generation; choose a generate_until task",
        "t/test/0/1 contains a str, but vlprm reads only images; choose another task",
        "['', '']",
    ]
