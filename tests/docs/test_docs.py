"""The commands and programs of the docs run as written, and their tables are those of the code."""

import dataclasses
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from eval.compare import main as compare
from eval.run import main as run_methods
from eval.runs.config import RunConfig, SolveConfig
from eval.solve import main as solve
from eval.tables.config import CompareConfig
from tests.backbone_table import table
from tests.docs.pages import ROOT, Run, commands_of, smaller
from tests.pair_benchmarks.rows import vl_row, write_vl
from train.reward.card import alone
from vlprm.data.dataset import read_rows
from vlprm.model.checkpoint_config import CHECKPOINT_FILE, CheckpointConfig, load_checkpoint_config
from vlprm.model.families import FAMILIES
from vlprm.model.loading import load_inputs
from vlprm.runs.config import parse
from vlprm.tasks.puzzles import FAMILY as puzzle_family
from vlprm.zoom.policy import REFUSALS, ZoomPolicy


@pytest.mark.slow
def test_the_walk_from_a_dataset_to_a_scored_pool_runs(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = commands_of("training.md")
    assert len(commands) == 9
    for command in commands:
        said = run(smaller(command))
        if "--dry_run" in command:
            assert "The first row" in said
    card = (tmp_path / "runs/walk/prm/README.md").read_text()
    assert "step_auroc" in card
    (example,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert (tmp_path / "runs/walk/report.html").exists()
    monkeypatch.chdir(tmp_path / "runs/walk")  # the card names the folder
    run(["-c", f"{example}\nassert len(rewards[0]) == 2"])


@pytest.mark.slow
def test_the_walk_from_trees_to_a_better_policy_runs(tmp_path: Path, run: Run) -> None:
    commands = commands_of("policy.md")
    stages = [shlex.split(command)[2] for command in commands]
    assert stages == ["data_synth.trees", "data_synth.label", "train.pairs", "train.dpo", "train.sft", "train.sft"]
    for command in commands:
        fewer = ["--solved", "16"] if "cold_start" in command else []
        run([*smaller(command), *fewer])
    for run in ("dpo", "sft", "cold_start"):
        assert (tmp_path / "runs/policy" / run / CHECKPOINT_FILE).exists()


@pytest.mark.slow
def test_the_plan_of_the_page_on_scale_is_printed(dataset: Path, tmp_path: Path, run: Run) -> None:
    """The page says what it prints for a backbone of 7 billion parameters, by the same names."""
    (tmp_path / "runs/walk/labels").mkdir(parents=True)
    shutil.copy(dataset, tmp_path / "runs/walk/labels/dataset.parquet")
    (command,) = commands_of("scale.md")
    said = run(smaller(command))
    (columns,) = re.findall(r"^GPUs  sharding .*", said, re.MULTILINE)
    page = (ROOT / "docs/scale.md").read_text()
    assert columns in page
    for line in ("a full batch", "memory of the machine", "KV cache", "computation"):
        assert f"\n{line}: " in said
        assert f"\n{line}: " in page


@pytest.mark.slow
def test_a_task_outside_the_package_goes_through_every_stage(tmp_path: Path, run: Run) -> None:
    said = {words[1]: run(words) for words in map(smaller, commands_of("add_a_task.md"))}
    stages = ["train.builtin", "data_synth.trees", "data_synth.judge", "data_synth.label", "train.prm"]
    assert list(said) == [*stages, "eval.run", "eval.report", "eval.table"]
    run = tmp_path / "runs/dominoes"
    rows = read_rows(run / "labels/dataset.parquet")
    assert {row["id"].partition("@")[0] for row in rows} == {"dominoes"}
    assert any(label is not None and 0 < label < 1 for row in rows for label in row["labels"])
    results = json.loads((run / "results.json").read_text())
    assert results["n_problems"] == 24
    assert results["steps"]["unscored"] == 0
    assert "docs.examples.twice_the_best" in said["eval.table"]


# A policy of two small layers, which sees 64 x 64 pixels: enough to learn the form of a solution, and no puzzle.
SMALL_PUZZLES = {
    "train.builtin": [
        *("--steps", "90", "--batch_size", "8", "--workers", "0", "--learning_rate", "4e-3"),
        *("--size.text_width", "96", "--size.text_layers", "2", "--size.text_heads", "3", "--size.kv_heads", "1"),
        *("--size.text_mlp", "192", "--size.vision_width", "32", "--size.vision_layers", "1"),
        *("--size.vision_heads", "2", "--size.vision_mlp", "64", "--size.patch", "8", "--size.image_side", "64"),
    ],
    "data_synth.trees": [
        *("--problems", "8", "--unit", "8", "--search.root_rollouts", "4"),
        *("--search.budget", "20", "--search.max_tokens", "160"),
    ],
    "train.prm": ["--epochs", "1"],
    "eval.run": ["--search.n", "2", "--search.max_tokens", "160"],
}


@pytest.fixture
def puzzles(tmp_path: Path) -> Path:
    """A folder of published puzzles, or of drawings in their layout where there are none."""
    published = Path(os.environ.get("VLPRM_DATA", ROOT.parent / "shared" / "data")) / "puzzlevqa"
    if published.is_dir():
        return published
    rows = []
    for i in range(4):
        drawn = puzzle_family.problem("test", i)
        content = drawn.meta["scene"]["content"]
        image = Path("images", content["type"], f"{content['type']}_{i:04d}.png")
        (tmp_path / "data" / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / image).write_bytes(drawn.images[0])
        question = drawn.question.partition("\n")[0]
        asked = {"question": question, "options": content["options"], "answer": content["answer"]}
        rows.append({"image": str(image), **asked})
    (tmp_path / "data/items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data"


@pytest.mark.slow
def test_what_is_taught_on_drawn_puzzles_is_asked_real_ones(tmp_path: Path, run: Run, puzzles: Path) -> None:
    sets = f"[{{name: puzzlevqa, data: {puzzles}, problems: 4}}, {{name: vlprm.tasks.puzzles, problems: 4}}]"
    sizes = {**SMALL_PUZZLES, "eval.run": [*SMALL_PUZZLES["eval.run"], "--benchmarks", sets]}
    said = {words[1]: run(words) for words in (smaller(command, sizes) for command in commands_of("puzzles.md"))}
    stages = ["train.builtin", "data_synth.trees", "data_synth.judge", "data_synth.label", "train.prm"]
    assert list(said) == [*stages, "eval.run", "eval.compare"]
    for name in ("policy", "prm"):
        assert load_inputs(tmp_path / "runs/puzzles" / name).pixel_limits == (32**2, 64**2)
    for row in ("vote", "best of N by", "by likelihood under the backbone"):
        assert row in said["eval.compare"]
    assert "8 problems" in said["eval.compare"]


def test_what_the_pages_quote_of_the_examples_is_so() -> None:
    example = (ROOT / "docs/examples/dominoes.py").read_text()
    quoted = re.findall(r"```python\n(.*?)```", (ROOT / "docs/add_a_task.md").read_text(), re.DOTALL)
    assert len(quoted) == 2
    assert all(block in example for block in quoted)
    (method,) = re.findall(r"```\n(async def .*?)```", (ROOT / "docs/inference.md").read_text(), re.DOTALL)
    assert method in (ROOT / "docs/examples/twice_the_best.py").read_text()
    (checkpoint_config,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs/add_a_backbone.md").read_text(), re.DOTALL)
    assert checkpoint_config == (ROOT / "docs/examples/llava/vlprm.json").read_text()


def test_the_programs_and_the_command_of_inference_run(folder: Path, run: Run) -> None:
    text = (ROOT / "docs/inference.md").read_text()
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(programs) == 3
    command, _ = re.findall(r"```\npython (-m eval.solve .*?)```", text, re.DOTALL)
    asked = [["-c", program] for program in programs] + [shlex.split(command.replace("\\\n", " "))]
    said = [run(words) for words in asked]
    assert said[1] == "0.9 2\n0.1 1\n"
    assert "chosen:" in said[2]
    assert "answer:" in said[3]
    assert list((folder / "runs/solve").glob("*/report.html"))


def test_the_program_without_our_code_is_that_of_a_model_card(folder: Path, run: Run) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/training.md").read_text(), re.DOTALL)
    assert program in alone(CheckpointConfig("step"), FAMILIES["qwen3_vl"], Path("merged")).replace(
        '"merged"', '"runs/walk/merged"'
    )
    (folder / "runs/walk").mkdir()
    (folder / "runs/demo/prm").rename(folder / "runs/walk/merged")
    run(["-c", f"{program}\nassert len(rewards) == len(steps)"])


def test_the_commands_of_the_other_scorers_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They use an ensemble, whole solutions, sampled critiques, the probability of their verdict, a value, and
    a standard deviation."""
    text = (ROOT / "docs/inference.md").read_text()
    _, commands = re.findall(r"```\n(python -m eval.solve .*?)```", text, re.DOTALL)
    monkeypatch.chdir(folder)
    kinds = []
    for command in commands.replace("\\\n", " ").splitlines():
        config = parse(SolveConfig, shlex.split(command)[3:])
        solve(
            dataclasses.replace(
                config, run=folder / str(len(kinds)), policy=dataclasses.replace(config.policy, device="cpu")
            )
        )
        kinds.append((config.scorer.kind, config.scorer.decision, len(config.reward_model)))
        assert f"chosen from {config.search.n} candidates" in capsys.readouterr().out
    assert kinds == [
        ("steps", "share", 2), ("whole", "share", 1), ("critiques", "share", 1), ("critiques", "probability", 1),
        *[("steps", "share", 1)] * 3,
    ]  # fmt: skip


def test_the_commands_of_the_page_on_the_vote_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a small size: two candidates of two problems, scored by two reward models."""
    monkeypatch.chdir(folder)
    (folder / "runs/critic").rename(folder / "runs/demo/self")
    small = ["--benchmarks", "[{name: count_grid, problems: 2}]", "--search.n", "2", "--policy.device", "cpu"]
    run_methods(parse(RunConfig, ["--config", "demo/eval", *small]))
    score, table = map(shlex.split, commands_of("compare.md"))
    assert (score[2], table[2]) == ("eval.run", "eval.compare")
    run_methods(parse(RunConfig, [*score[3:], *small]))
    capsys.readouterr()
    compare(parse(CompareConfig, table[3:]))
    said = capsys.readouterr().out
    assert "2 problems, 2 candidates each" in said
    assert "best of N by demo" in said
    assert "best of N by self" in said


def test_the_commands_of_the_pair_benchmarks_run(folder: Path, run: Run) -> None:
    """On two pairs by hand, which prefer opposite responses."""
    write_vl(folder / "VL-RewardBench", [vl_row(), vl_row(id="RLHF-V-1", human_ranking=[1, 0])])
    commands = [shlex.split(command)[1:] for command in commands_of("evaluation.md")]
    assert [words[1] for words in commands] == ["eval.preferences"] * 2
    for words in commands:
        assert "2 pairs" in run(words)
        results = json.loads((folder / words[-1] / "results.json").read_text())
        assert results["official"]["measures"]["accuracy"] == 0.5


def test_the_table_of_backbones_is_what_the_tests_prove() -> None:
    assert table() in (ROOT / "docs/add_a_backbone.md").read_text()


def test_the_profile_and_the_refusals_of_the_page_on_zooms_are_the_codes(tmp_path: Path) -> None:
    page = (ROOT / "docs/zoom.md").read_text()
    (tmp_path / CHECKPOINT_FILE).write_text(page.partition("```json\n")[2].partition("```")[0])
    declared = dataclasses.asdict(load_checkpoint_config(tmp_path).zoom)
    assert all(
        declared[name] != value for name, value in dataclasses.asdict(ZoomPolicy()).items() if name != "max_aspect"
    )
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(REFUSALS)
    (tmp_path / CHECKPOINT_FILE).write_text('{"zoom": {"min_side": 0}}')
    with pytest.raises(ValueError, match="does not describe a checkpoint, correct it: zoom: give min_side >= 1"):
        load_checkpoint_config(tmp_path)


def test_every_file_of_the_map_is_there() -> None:
    page = (ROOT / "docs/map.md").read_text()
    paths = re.findall(r"`((?:vlprm|data_synth|train|eval)/[\w/.]+)(?:: [\w.]+)?`", page)
    assert len(paths) > 50
    assert [path for path in paths if not (ROOT / path).exists()] == []
