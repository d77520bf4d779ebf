"""The commands of the pages on labels, judges and labelled steps run as written, at a smaller size."""

from __future__ import annotations

import json
from pathlib import Path

from tests.docs.pages import Run, commands_of, smaller
from tests.step_benchmarks.test_step_benchmarks import changed_row, process_row, spoilt_row, write_rows
from vlprm.data.dataset import read_rows
from vlprm.tasks import TASKS

POOL = ["--search.n", "2", "--policy.device", "cpu"]
SETS = "[{name: count_grid, split: %s, problems: 2}]"
SMALL = {
    "data_synth.trees": ["--tasks", "[count_grid, chart]", "--problems", "6", "--unit", "6", "--search.budget", "24"],
    "eval.run": [*POOL, "--benchmarks", SETS % "validation"],
    "eval.flips": ["--problems", "2", "--tasks", "[count_grid]"],
}


def write_pool(run: Run) -> None:
    """The demo's candidates, of two problems."""
    run(["-m", "eval.run", "--config", "configs/demo/eval.yaml", *POOL, "--benchmarks", SETS % "test"])


def test_the_commands_from_trees_to_labels_of_two_sources_run(folder: Path, run: Run) -> None:
    write_pool(run)
    *stages, claims = commands_of("synthesis.md")
    said = {words[1]: run(words) for words in (smaller(command, SMALL) for command in [*stages, claims])}
    assert list(said) == [f"data_synth.{name}" for name in ("trees", "judge", "label", "report", "fuse", "claims")]
    for command in commands_of("judges.md"):
        run(smaller(command))
    rows, again, two = (
        read_rows(folder / "runs" / name)
        for name in ("demo/labels/dataset.parquet", "consensus.parquet", "two/labels/dataset.parquet")
    )
    assert [row["id"] for row in rows] == [row["id"] for row in again] == [row["id"] for row in two]
    assert {json.loads(row["evidence"])[0]["label"]["rule"] for row in again} == {"consensus"}
    votes = [node["label"]["votes"] for row in two for node in json.loads(row["evidence"])]
    assert {name for vote in votes for name in vote} == {"judgements", "check"}
    lines = (folder / "runs/claims/claims.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert any(step["claims"] for line in lines for step in json.loads(line)["steps"])
    assert (folder / "runs/demo/synthesis.html").exists()


def write_benchmarks(folder: Path) -> None:
    """A folder of two rows for each benchmark that the page names, and predictions."""
    (folder / "vlrm_bench/images").mkdir(parents=True)
    (folder / "vlrm_bench/images/a.png").write_bytes(TASKS["count_grid"].problem("test", 0).images[0])
    write_rows(folder / "vlrm_bench/location_error.jsonl", [spoilt_row(), spoilt_row(id="8", task_gt=[1, 0])])
    for name in ("process_bench", "prm_bench"):
        (folder / name).mkdir()
    rows = [process_row(id=f"gsm8k-{at}", label=at - 1) for at in range(2)]
    (folder / "process_bench/gsm8k.json").write_text(json.dumps(rows))
    write_rows(folder / "prm_bench/circular.jsonl", [changed_row(), changed_row(idx="p_1", error_steps=[1])])
    write_rows(folder / "FILE", [{"key": f"circular_p_{at}", "rewards": [0.9, 0.1]} for at in range(2)])


def test_the_commands_of_the_page_on_step_benchmarks_run(folder: Path, run: Run) -> None:
    write_pool(run)
    write_benchmarks(folder / "data")
    measured: dict[str, int] = {}
    for command in commands_of("step_benchmarks.md"):
        words = smaller(command, SMALL)
        places = {"DIR": f"data/{words[3]}", "FILE": "data/FILE"}
        run([places.get(word, word) for word in words])
        if words[1] == "eval.steps":
            name = words[words.index("--run") + 1]
            results = json.loads((folder / name / "results.json").read_text())
            measured[name] = results["labelled_steps"] - results["no_result"]["steps"]
    assert len(measured) == 7
    assert min(measured.values()) > 0
    official = json.loads((folder / "runs/steps/vlrm/results.json").read_text())["official"]
    assert len(official) == 2, "at 0.5, and at the threshold of the other run"
    for name in ("flips", "flips_likelihood"):
        assert json.loads((folder / "runs" / name / "results.json").read_text())["groups"]
