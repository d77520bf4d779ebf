"""Runs of benchmarks lose nothing: stopped, with stragglers, or on a cluster that loses a worker."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from datasets import Dataset, load_dataset

from eval import report, score
from eval.run import main, models_of
from eval.runs.config import ProblemSetConfig, RunConfig
from eval.runs.pools import pool_of
from eval.runs.results import read_runs
from eval.runs.worker import FEATURES
from eval.tables.config import ReportConfig
from eval.view import run_problems
from tests.docs.pages import ROOT
from tests.ray_nodes import a_worker, two_nodes
from tests.stand_in import Answer, Body, StandIn, completion, config_of
from vlprm.images import open_image, png
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.runs.config import dump
from vlprm.runs.journal import read_records
from vlprm.runs.ray import gpus_per_worker
from vlprm.runs.window import EXIT_STOPPED
from vlprm.schema import StepScore
from vlprm.search import SearchConfig, select
from vlprm.serving.config import ModelConfig, ServerConfig, devices_of
from vlprm.tasks import TASKS
from vlprm.tasks.figure import FAMILY

Record = dict[str, Any]


class Policy:
    """The answers of a stand-in server, which depend only on the request."""

    def __init__(self) -> None:
        self.asked = 0
        self.seconds: Callable[[int], float] = lambda count: 0.0
        self.on_request: Callable[[int], None] = lambda count: None

    def __call__(self, body: Body) -> Answer:
        if "n" not in body:  # the check at the start
            return completion("1")
        self.asked += 1
        count = self.asked
        self.on_request(count)
        time.sleep(self.seconds(count))
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
        return completion(*(f"[reasoning] so many\n\n[answer] {digest[i] % 4}" for i in range(body["n"])))


@pytest.fixture
def policy(server: StandIn) -> Policy:
    server.reply = Policy()
    return server.reply


@pytest.fixture
def benchmark(tmp_path: Path) -> ProblemSetConfig:
    """Six items, two of them without their images."""
    folder = tmp_path / "mathvision"
    (folder / "images").mkdir(parents=True)
    items = [
        {"id": str(i), "question": "Which?", "options": ["A", "B"], "answer": "B", "level": 1, "subject": "logic",
         "image": f"images/{i}.png"} for i in range(6)
    ]  # fmt: skip
    (folder / "test.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    for i in range(4):
        (folder / f"images/{i}.png").write_bytes(png(open_image(FAMILY.problem("train", i).images[0])))
    return ProblemSetConfig("mathvision", folder)


def served(run: Path, server: StandIn, *asked: ProblemSetConfig, **changes: Any) -> RunConfig:
    base = RunConfig(run, ModelConfig("builtin/policy", config_of(server, concurrency=8)), asked,
                     ("self_consistency", "adaptive"), SearchConfig(n=4, max_tokens=160), unit=4)  # fmt: skip
    return dataclasses.replace(base, **changes)


def test_problems_of_ones_own_are_a_benchmark(server: StandIn, policy: Policy, tmp_path: Path) -> None:
    """Each problem has its declared answer type; one with a missing image is a failure."""
    (tmp_path / "cups.png").write_bytes(png(open_image(FAMILY.problem("train", 0).images[0])))
    problem = {"question": "How many?", "answer": "2", "answer_type": "integer"}
    rows = [{"id": str(i), "images": [name], **problem} for i, name in enumerate(("cups.png", "cups.png", "gone.png"))]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine = ProblemSetConfig("mine", problem_file=path)
    main(served(tmp_path / "run", server, mine, methods=("self_consistency",)))
    found = {record["problem"]: record for record in records_of(tmp_path / "run")}
    assert [found[i]["failure"] for i in "012"] == ["", "", "image_missing"]
    assert {(c["answer"], c["right"]) for c in found["0"]["candidates"]} <= {(str(k), k == 2) for k in range(4)}
    assert read_runs((tmp_path / "run",))[0].failures == {("mine", "image_missing"): 1}
    with pytest.raises(ValueError, match="holds your own problems; choose a name that is not taken"):
        main(served(tmp_path / "other", server, ProblemSetConfig("chart", problem_file=path)))


def test_a_run_without_a_result_is_no_success_and_the_same_command_tries_again(
    server: StandIn, policy: Policy, tmp_path: Path
) -> None:
    path, image = tmp_path / "problems.jsonl", png(open_image(FAMILY.problem("train", 0).images[0]))
    problem = {"question": "How many?", "images": ["cups.png"], "answer": "2", "answer_type": "integer"}
    path.write_text("".join(json.dumps({"id": i, **problem}) + "\n" for i in "ab"))
    mine = ProblemSetConfig("my.cups", problem_file=path)
    config = served(tmp_path / "run", server, mine, methods=("self_consistency",))
    with pytest.raises(ValueError, match=r"no problem could be solved \(\{'image_missing': 2\}\); the first: [ab]: "):
        main(config)
    assert not (tmp_path / "run" / "done.json").exists()
    (tmp_path / "cups.png").write_bytes(image)
    main(config)
    assert [r["failure"] for r in records_of(tmp_path / "run")] == ["", ""]
    shown = run_problems(tmp_path / "run", TASKS)
    assert [(shown.view(at).id, shown.images(at)) for at in range(2)] == [("a", (image,)), ("b", (image,))]


def test_a_benchmark_of_ones_own_is_named_by_its_module(server: StandIn, tmp_path: Path) -> None:
    image = png(open_image(FAMILY.problem("train", 0).images[0]))
    (tmp_path / "1.png").write_bytes(image)
    row = {"id": "1", "question": "Which sign?", "options": ["stop", "yield"], "answer": "B", "place": "city"}
    (tmp_path / "items.jsonl").write_text(json.dumps({**row, "image": "1.png"}) + "\n")
    server.reply = lambda body: completion(*["[answer] stop", "[answer] (B) yield"][: body.get("n", 1)])
    signs = ProblemSetConfig("docs.examples.signs", tmp_path)
    run = tmp_path / "run"
    main(served(run, server, signs, methods=("self_consistency",), search=SearchConfig(n=2, max_tokens=160)))
    (record,) = records_of(run)
    assert [(c["answer"], c["right"]) for c in record["candidates"]] == [("A", False), ("B", True)]
    report.main(ReportConfig(run, ("docs.examples.signs",)))
    assert run_problems(run, {}, ["docs.examples.signs"]).images(0) == (image,)
    with pytest.raises(ValueError, match="belong to the task 'signs'"):
        run_problems(run, TASKS)
    outputs = written(tmp_path / "outputs.jsonl", [{"id": "1", "response": "[answer] yield"}])
    assert score.score(score.ScoreConfig("docs.examples.signs", outputs, tmp_path))["accuracy"] == 1
    with pytest.raises(ValueError, match=r"unknown benchmark 'docs\.examples\.nowhere': No module named"):
        main(served(tmp_path / "other", server, ProblemSetConfig("docs.examples.nowhere", tmp_path)))


def test_problems_for_which_a_server_failed_are_solved_again_by_the_same_command(
    server: StandIn, policy: Policy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = ["How many"]

    def sometimes(body: Body) -> Answer:
        if "n" in body and any(word in json.dumps(body) for word in broken):
            return 500, "text/html", "<html>"
        return policy(body)

    server.reply = sometimes
    asked = ProblemSetConfig("count_grid", problems=3), ProblemSetConfig("chart", problems=3)
    config = served(tmp_path / "run", server, *asked, methods=("self_consistency",))
    main(config)
    assert "3 records lack answers because servers failed" in caplog.text
    broken.clear()
    main(config)
    server.reply = policy
    main(served(tmp_path / "whole", server, *asked, methods=("self_consistency",)))
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")


def test_equal_answers_are_one_vote_however_they_are_written(server: StandIn, tmp_path: Path) -> None:
    """In the choice of a run, and in every selector that is computed from its records."""
    path = tmp_path / "problems.jsonl"
    (tmp_path / "cake.png").write_bytes(png(open_image(FAMILY.problem("train", 0).images[0])))
    problem = {"id": "0", "question": "How much?", "images": ["cake.png"], "answer": "0.5", "answer_type": "expression"}
    path.write_text(json.dumps(problem) + "\n")
    written = [f"[answer] {answer}" for answer in ("3", "\\frac{1}{2}", "3", "0.5", "50\\%")]
    server.reply = lambda body: completion(*written[: body.get("n", 1)])
    asked = served(
        tmp_path / "run", server, ProblemSetConfig("mine", problem_file=path), search=SearchConfig(n=5, max_tokens=160)
    )
    main(dataclasses.replace(asked, methods=("self_consistency",)))
    (record,) = records_of(tmp_path / "run")
    assert record["shares"] == pytest.approx([0, 1 / 3, 0, 1 / 3, 1 / 3])
    assert [c["answer"] for c in record["candidates"]] == ["3", "1/2", "3", "1/2", "50%"]
    assert select.majority(pool_of(record).candidates) == record["shares"]


def records_of(run: Path) -> list[Record]:
    return list(read_records(run / "records.jsonl"))


def timeless(run: Path) -> list[Record]:
    """The records in the order of their keys, without times."""
    found = [{**r, "cost": {**r["cost"], "seconds": 0}} for r in records_of(run)]
    return sorted(found, key=lambda record: record["key"])


def test_a_straggler_of_a_served_policy_holds_nothing_up(server: StandIn, policy: Policy, tmp_path: Path) -> None:
    policy.seconds = lambda count: 3.0 if count == 1 else 0.0
    main(served(tmp_path / "run", server, ProblemSetConfig("chart", problems=8), methods=("self_consistency",), unit=2))
    found = records_of(tmp_path / "run")
    assert [r["cost"]["seconds"] > 2 for r in found] == [False] * 7 + [True]


def test_sigint_finishes_what_is_open_and_the_same_command_goes_on(
    server: StandIn, policy: Policy, benchmark: ProblemSetConfig, tmp_path: Path
) -> None:
    main(served(tmp_path / "whole", server, benchmark))
    needed, policy.asked = policy.asked, 0
    policy.seconds = lambda count: 0.1
    policy.on_request = lambda count: count == 3 and os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(SystemExit) as stopped:
        main(served(tmp_path / "run", server, benchmark, unit=2))
    assert stopped.value.code == EXIT_STOPPED
    assert 0 < len(records_of(tmp_path / "run")) < 12
    assert not (tmp_path / "run" / "done.json").exists()
    policy.on_request = lambda count: None
    main(served(tmp_path / "run", server, benchmark, unit=2))
    assert policy.asked == needed
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")


def test_a_cluster_that_is_not_there_is_named(server: StandIn, benchmark: ProblemSetConfig, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match=r"no Ray cluster answers at '127\.0\.0\.1:1'; start one with `ray start --he"):
        main(served(tmp_path / "run", server, benchmark, ray="127.0.0.1:1"))


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_makes_the_records_of_one_process(
    server: StandIn, policy: Policy, benchmark: ProblemSetConfig, tmp_path: Path
) -> None:
    asked = benchmark, ProblemSetConfig("chart", problems=20)
    main(served(tmp_path / "whole", server, *asked))
    policy.asked, killed = 0, []

    def kill_one(count: int) -> None:
        if count == 10:
            killed.append(a_worker())
            killed[0].kill()

    policy.on_request, policy.seconds = kill_one, lambda count: 0.2
    with two_nodes() as address:
        main(served(tmp_path / "cluster", server, *asked, ray=address, workers=2))
    assert killed
    assert timeless(tmp_path / "cluster") == timeless(tmp_path / "whole")
    assert [r["failure"] for r in records_of(tmp_path / "cluster")].count("image_missing") == 4


@pytest.mark.parametrize(
    ("devices", "of_cluster", "gpus"),
    [
        (("cpu", "cpu"), 8, 0),
        (("cuda", "cuda"), 8, 1),
        (("cuda", "cuda"), 0, 1),
        (("cuda:0", "cuda:1"), 8, 2),
        (("cpu", "cuda:1"), 8, 1),
        (("auto", "auto"), 8, 1),
        (("auto", "cuda"), 8, 1),
        (("auto", "auto"), 0, 0),
    ],
)
def test_a_worker_has_a_gpu_for_each_device_of_its_models(
    devices: tuple[str, str], of_cluster: int, gpus: int, tmp_path: Path
) -> None:
    policy, reward_model = (ModelConfig("a", device=device) for device in devices)
    config = RunConfig(tmp_path, policy, (), reward_model=reward_model)
    assert gpus_per_worker(devices_of(models_of(config)), of_cluster) == gpus
    served = ModelConfig("a", ServerConfig(("http://localhost/v1",), "a"), "cuda")
    assert devices_of(models_of(dataclasses.replace(config, policy=served, reward_model=served))) == ()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_models_in_workers_solve_as_in_one_process(
    tiny_backbone: Callable[[str], Path], benchmark: ProblemSetConfig, tmp_path: Path
) -> None:
    """Runs the command itself, and kills one of its workers once there are records."""
    folder = tiny_backbone("qwen2_5_vl")
    checkpoint = load_reward_model(folder, new_head="step")
    save_reward_model(checkpoint, tmp_path / "prm", checkpoint.config)
    search, asked = SearchConfig(n=3, max_tokens=8, max_steps=2), (benchmark, ProblemSetConfig("chart", problems=10))
    models = [ModelConfig(str(path), device="cpu") for path in (folder, tmp_path / "prm")]
    config = RunConfig(tmp_path / "whole", models[0], asked, ("best_of_n",), search, models[1], unit=2)
    main(config)
    run, killed = tmp_path / "cluster", []

    def kill_one() -> None:
        while not (run / "records.jsonl").exists() or not records_of(run):
            time.sleep(0.05)
        killed.append(a_worker())
        killed[0].kill()

    with two_nodes() as address:
        (tmp_path / "run.yaml").write_text(dump(dataclasses.replace(config, run=run, ray=address, workers=2)))
        threading.Thread(target=kill_one, daemon=True).start()
        words = ["-m", "eval.run", "--config", str(tmp_path / "run.yaml")]
        done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "there is no image 'images/5.png'" in done.stderr
    assert killed
    assert alike(timeless(run), timeless(tmp_path / "whole"))


def alike(a: Any, b: Any) -> bool:
    """Equal except for the last bits of a score: a worker has one thread, and adds in another order."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(alike, a, b))
    return a == (pytest.approx(b, abs=1e-5) if isinstance(a, float) else b)


def test_records_are_tables_for_pandas_and_datasets(
    server: StandIn, policy: Policy, benchmark: ProblemSetConfig, tmp_path: Path
) -> None:
    """Both read every row, including those of failed problems."""
    main(served(tmp_path / "run", server, benchmark))
    path = tmp_path / "run" / "records.jsonl"
    frame, table = pandas.read_json(path, lines=True), loaded(path)
    assert frame["failure"].tolist() == table["failure"] == [r["failure"] for r in records_of(tmp_path / "run")]
    assert (len(frame), table["failure"].count("image_missing")) == (12, 4)
    assert read_runs((tmp_path / "run",), "methods")[0].failures == {("mathvision", "image_missing"): 4}


def test_what_first_stands_far_into_a_file_is_read_by_datasets_too(
    server: StandIn, policy: Policy, benchmark: ProblemSetConfig, tmp_path: Path
) -> None:
    """`datasets` guesses the columns from the first 10 MB. It reads a later failure as it is, and later scores if it is
    given their type."""
    main(served(tmp_path / "run", server, benchmark))
    solved, failed = [[r for r in records_of(tmp_path / "run") if bool(r["failure"]) is f] for f in (False, True)]
    rows = [*solved * (11 * 2**20 // len(json.dumps(solved))), *failed]
    assert loaded(written(tmp_path / "long.jsonl", rows)).num_rows == len(rows)
    scores = [dataclasses.asdict(StepScore(0.5, 0.2, 0.3)), None]
    last = {**solved[0], "candidates": [{**solved[0]["candidates"][0], "scores": scores}]}
    told = loaded(written(tmp_path / "scored.jsonl", [*rows, last]), features=FEATURES)
    assert told[-1] == last


def written(path: Path, records: list[Record]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def loaded(path: Path, **told: Any) -> Dataset:
    return load_dataset("json", data_files=str(path), split="train", cache_dir=str(path.with_suffix("")), **told)
