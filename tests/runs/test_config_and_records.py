"""Configs name a user's mistake; records survive a kill."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml

from data_synth.injected.config import InjectConfig
from data_synth.judges.config import JudgeConfig
from data_synth.labels.config import LabelConfig
from data_synth.search.config import TreesConfig, TreeSearchConfig
from eval.runs.config import RunConfig, SolveConfig
from eval.tables.config import TableConfig, ViewConfig
from train.policy.config import BuiltinConfig
from train.reward.config import PrmConfig
from vlprm.errors import UserError
from vlprm.labels.fusion import RULES, Rule
from vlprm.runs.config import dump, parse, run
from vlprm.runs.folder import fingerprint, open_run, refuse_other_inputs, timed
from vlprm.runs.journal import Records, finish, finished_records, in_units, read_records
from vlprm.schema import Aggregation
from vlprm.scoring.aggregate import AGGREGATIONS
from vlprm.search import SearchConfig
from vlprm.serving.config import ModelConfig, ServerConfig
from vlprm.tasks import TASKS, problem_by_id


@dataclass(frozen=True)
class Inner:
    width: int = 3


@dataclass(frozen=True)
class Example:
    """An example.

    Args:
        run: a folder.
    """

    run: Path
    learning_rate: float = 0.1
    inner: Inner = Inner()
    names: tuple[str, ...] = ("a",)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("run: here\nlearning_rate: 0.5\ninner: {width: 5}\n")
    config = parse(Example, ["--config", str(file), "--learning_rate", "0.25"])
    assert config == Example(Path("here"), 0.25, Inner(5))
    assert parse(Example, ["--learning_rate=0.25", f"--config={file}"]) == config
    (tmp_path / "again.yaml").write_text(dump(config))
    assert parse(Example, ["--config", str(tmp_path / "again.yaml")]) == config


@pytest.mark.parametrize(
    ("cls", "flags", "field", "value"),
    [
        (SolveConfig, ["--question=q", "--image", "a.jpg"], "image", (Path("a.jpg"),)),
        (TableConfig, ["--runs", "runs/x"], "runs", (Path("runs/x"),)),
        (TreesConfig, ["--run=x", "--tasks", "chart"], "tasks", ("chart",)),
        (PrmConfig, ["--run=x", "--dataset=x", "--freeze", "text"], "freeze", ("text",)),
        (PrmConfig, ["--run=x", "--dataset=x", "--dry_run"], "dry_run", True),
        (PrmConfig, ["--dry_run", "--run=x", "--dataset=x"], "dry_run", True),
        (PrmConfig, ["--run=x", "--dataset=x", "--dry_run", "false"], "dry_run", False),
    ],
)
def test_one_value_is_a_list_of_one_and_a_switch_needs_none(
    cls: type, flags: list[str], field: str, value: object, tmp_path: Path
) -> None:
    assert getattr(parse(cls, flags), field) == value
    if isinstance(value, tuple):  # the same in a recipe
        (tmp_path / "c.yaml").write_text(f"{field}: {value[0]}")
        others = [flag for flag in flags if "=" in flag]
        assert getattr(parse(cls, ["--config", str(tmp_path / "c.yaml"), *others]), field) == value


@dataclass(frozen=True)
class Asked:
    """Models.

    Args:
        policy: one.
        reward_model: one, or none.
        others: several.
    """

    policy: ModelConfig = ModelConfig("builtin/policy")
    reward_model: ModelConfig | None = None
    others: tuple[ModelConfig, ...] = ()


B_ON_GPU = ModelConfig("b", device="cuda:1")
SERVER = ServerConfig(("http://localhost:8000/v1",), "m")
MAPPING = '{checkpoint: b, device: "cuda:1"}'


@pytest.mark.parametrize(
    ("argv", "text", "models"),
    [
        ([], "policy: a\nreward_model: b\nothers: c", Asked(*map(ModelConfig, "ab"), (ModelConfig("c"),))),
        ([], f"policy: a\nothers: [c, {MAPPING}]", Asked(ModelConfig("a"), None, (ModelConfig("c"), B_ON_GPU))),
        (["--policy", "a", "--reward_model=b"], "", Asked(*map(ModelConfig, "ab"))),
        (["--others", "c"], "", Asked(others=(ModelConfig("c"),))),
        (["--others", f"[c, {MAPPING}]"], "", Asked(others=(ModelConfig("c"), B_ON_GPU))),
        (["--reward_model", MAPPING], "", Asked(reward_model=B_ON_GPU)),
        (["--reward_model.device", "cuda:1"], "reward_model: b", Asked(reward_model=B_ON_GPU)),
        (["--reward_model", "b"], "reward_model: {checkpoint: a, device: 'cuda:1'}", Asked(reward_model=B_ON_GPU)),
        (["--reward_model", "null"], "reward_model: b", Asked()),
        (
            ["--policy.server.base_urls", "http://localhost:8000/v1", "--policy.server.model=m"],
            "policy: a",
            Asked(ModelConfig("a", SERVER)),
        ),
    ],
)
def test_a_plain_text_stands_for_the_checkpoint_of_a_model(
    tmp_path: Path, argv: list[str], text: str, models: Asked
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    made = parse(Asked, ["--config", str(tmp_path / "c.yaml"), *argv])
    assert made == models
    (tmp_path / "again.yaml").write_text(dump(made))
    assert parse(Asked, ["--config", str(tmp_path / "again.yaml")]) == models


@pytest.mark.parametrize(
    ("argv", "text", "message"),
    [
        (
            ["--reward_model.devise", "cpu"],
            "",
            "unknown flag --reward_model.devise; did you mean 'reward_model.device'?",
        ),
        ([], "reward_model: {devise: cpu}", "unknown key 'reward_model.devise' in .* 'reward_model.device'?"),
        (["--others.device", "cpu"], "", r"others is a list, whose items have fields: others: \[{device: \.\.\.}\]"),
        (["--policy.server.model", "m"], "", "^server.base_urls and server.model go together"),
        (["--reward_model.server.model", "m"], "reward_model: b", "^server.base_urls and server.model go together"),
        (["--others", "[c"], "", "--others is not YAML"),
    ],
)
def test_mistakes_about_models_are_named(tmp_path: Path, argv: list[str], text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        parse(Asked, ["--config", str(tmp_path / "c.yaml"), *argv])


@pytest.mark.parametrize(
    ("argv", "text", "message"),
    [
        (["--learning_rat", "1"], "", "unknown flag --learning_rat; did you mean 'learning_rate'"),
        ([], "learnin_rate: 1", "unknown key 'learnin_rate' in .*did you mean 'learning_rate'"),
        ([], "run: x\nlearning_rate: fast", "learning_rate"),
        ([], "run: [", "is not YAML"),
        ([], "just words", "is not a recipe; write `key: value` lines"),
        (["--config", "nowhere.yaml"], "", r"there is no config file or recipe nowhere.yaml"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, argv: list[str], text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        parse(Example, ["--config", str(tmp_path / "c.yaml"), *argv])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train.prm", "--acumulate", "3"], "unknown flag --acumulate; did you mean 'accumulate'?"),
        (["data_synth.trees", "--policy", "nowhere", "--run", "RUN"], "no checkpoint folder nowhere"),
    ],
)
def test_commands_exit_with_status_2_and_one_sentence(tmp_path: Path, command: list[str], message: str) -> None:
    """As programs; test_mistakes.py has more, in this process."""
    argv = [word.replace("RUN", str(tmp_path / "run")) for word in command]
    done = subprocess.run([sys.executable, "-m", *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def ours(config: Example) -> None:
    raise UserError(
        "the width is odd; make it even"  # in two lines, as many of ours are
    )


def of_the_library(config: Example) -> None:
    problem_by_id("nothing@1/test/000000", TASKS)


@pytest.mark.parametrize(
    ("main", "message"), [(ours, "make it even"), (of_the_library, "items belong to the task 'nothing'")]
)
def test_a_refusal_is_one_sentence(
    main: Callable[[Example], None], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["stage", "--run=x"])
    with pytest.raises(SystemExit, match="2"):
        run(main, Example)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    "fault",
    [
        lambda config: torch.nn.Conv2d(3, 4, 3, padding_mode="odd"),
        lambda config: list(zip("ab", "a", strict=True)),
        lambda config: int("three"),
    ],
)
def test_a_fault_keeps_its_traceback(fault: Callable[[Example], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["stage", "--run=x"])
    with pytest.raises(ValueError, match=r".*"):
        run(fault, Example)


STAGES = {
    BuiltinConfig: ["--run=x"],
    TreeSearchConfig: [],
    TreesConfig: ["--run=x"],
    JudgeConfig: ["--run=x", "--trees=x"],
    LabelConfig: ["--run=x", "--trees=x"],
    InjectConfig: ["--run=x", "--trees=x"],
    PrmConfig: ["--run=x", "--dataset=x"],
    RunConfig: ["--run=x", "--policy=x", "--benchmarks=[]"],
    ViewConfig: ["--run=x"],
}


ANY = ("seed", "bits")  # any number is a seed; bits are a choice


@pytest.mark.parametrize("cls", [cls for cls in STAGES if cls is not LabelConfig])  # it has no numbers
def test_numbers_that_make_no_sense_are_refused(cls: type) -> None:
    numbers = [f.name for f in fields(cls) if type(f.default) in (int, float) and f.name not in ANY]
    assert numbers
    for name in numbers:
        with pytest.raises(ValueError, match=f"{name} takes an? .*, not -1"):
            parse(cls, [*STAGES[cls], f"--{name}=-1"])
    again = parse(cls, [*STAGES[cls], *(f"--{name}=1" for name in numbers)])
    assert f"{numbers[0]}: 1" in dump(again)
    # Plain Python types: a checkpoint could not load others again.
    assert {type(getattr(again, name)) for name in numbers} <= {int, float}


@pytest.mark.parametrize(
    ("cls", "flag"),
    [
        (LabelConfig, "--rule=vote"),
        (JudgeConfig, "--error_rate=1.5"),
        (PrmConfig, "--aggregation=median"),
        (PrmConfig, "--epochs=0"),
        (PrmConfig, "--accumulate=0"),
        (RunConfig, "--search.n=0"),
        (RunConfig, "--unit=0"),
    ],
)
def test_values_that_a_field_cannot_hold_are_refused(cls: type, flag: str) -> None:
    name, _, value = flag.removeprefix("--").partition("=")
    with pytest.raises(ValueError, match=f"{name} takes .*, not {value}"):
        parse(cls, [*STAGES[cls], flag])


def test_every_choice_of_a_config_is_there() -> None:
    assert set(get_args(Aggregation)) == set(AGGREGATIONS)
    assert set(get_args(Rule)) == set(RULES)


def test_defaults_suit_a_policy_of_billions_and_the_demo_states_its_own_numbers() -> None:
    """A solution of such a policy has 300 to 1,000 tokens, one of the built-in policy at most 160."""
    trees = parse(TreesConfig, ["--config", "configs/demo/trees.yaml"])
    evaluation = parse(RunConfig, ["--config", "configs/demo/eval.yaml"])
    assert [config.search.max_tokens for config in (trees, evaluation)] == [160, 160]
    assert [config.max_tokens for config in (TreeSearchConfig(), SearchConfig())] == [1024, 1024]


def test_a_torn_line_is_dropped_and_whole_ones_kept(tmp_path: Path) -> None:
    records = Records(tmp_path / "r.jsonl")
    records.append([{"key": "a", "x": 1}, {"key": "b", "x": 2}])
    with records.path.open("a") as file:
        file.write('{"key": "c", "x"')
    before = records.path.read_bytes()
    assert [r["key"] for r in read_records(records.path)] == ["a", "b"]
    assert records.path.read_bytes() == before, "a reader must leave the file to its writer"
    again = Records(tmp_path / "r.jsonl")
    assert again.keys == {"a", "b"}
    again.append([{"key": "c", "x": 3}])
    assert [r["x"] for r in Records(tmp_path / "r.jsonl")] == [1, 2, 3]
    records.path.write_text("garbage\n")
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        Records(tmp_path / "r.jsonl")


def test_a_unit_is_done_whole_or_not_at_all(tmp_path: Path) -> None:
    records = Records(tmp_path / "r.jsonl")
    items = list("abcdefg")
    units = in_units(items, 3, records, key=str)
    records.append({"key": i} for i in next(units))
    assert list(in_units(items, 3, Records(records.path), key=str)) == [["d", "e", "f"], ["g"]]


def test_a_unit_cut_in_the_middle_is_done_again_as_a_whole(tmp_path: Path) -> None:
    records = Records(tmp_path / "r.jsonl")
    records.append({"key": i} for i in "abcd")
    assert list(in_units(list("abcdefg"), 3, records, key=str)) == [["d", "e", "f"], ["g"]]
    assert records.keys == set("abc")


def test_a_run_is_continued_where_and_how_fast_it_likes_and_not_mixed_with_another(tmp_path: Path) -> None:
    cases = (Path(__file__).parents[1] / "fixtures" / "resumed.jsonl").read_text().splitlines()
    for at, case in enumerate(map(json.loads, cases)):
        folder, old, new = tmp_path / str(at), yaml.safe_dump(case["old"]), yaml.safe_dump(case["new"])
        open_run(folder, old, 0)
        Records(folder / "records.jsonl").append([{"key": "a"}])
        if "said" in case:
            with pytest.raises(ValueError, match=re.escape(case["said"])):
                open_run(folder, new, 0, fixed=case.get("fixed", ()))
            assert (folder / "config.yaml").read_text() == old
        else:
            open_run(folder, new, 0)
            assert (folder / "config.yaml").read_text() == new, case["of"]


def test_a_try_without_results_leaves_its_folder_free(tmp_path: Path) -> None:
    run, source = tmp_path / "run", tmp_path / "in.jsonl"
    source.write_text("1")
    open_run(run, "a: 1\n", 0, [source])
    Records(run / "records.jsonl").drop({"all"})  # leaves an empty file
    with timed(run, "stage"):
        finish(Records(run / "records.jsonl"))
    source.write_text("2")
    open_run(run, "a: 2\n", 7, [source])
    assert json.loads((run / "env.json").read_text())["seed"] == 7
    refuse_other_inputs(run, [source])
    Records(run / "records.jsonl").append([{"key": "a"}])
    source.write_text("3")
    with pytest.raises(ValueError, match=r"was made from other inputs than .*/in\.jsonl as it is now; choose another"):
        open_run(run, "a: 2\n", 0, [source])
    with pytest.raises(ValueError, match="does not exist"):
        fingerprint(tmp_path / "nothing")


def test_records_are_read_by_the_next_stage_only_when_theirs_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with pytest.raises(ValueError, match=r"r\.jsonl does not exist; make it with `python -m a\.stage`"):
        finished_records(path, "a.stage")
    records = Records(path)
    records.append([{"key": "a"}])
    with pytest.raises(ValueError, match=r"r\.jsonl is not finished .* run `python -m a\.stage` to its end"):
        finished_records(path, "a.stage")
    finish(records)
    assert finished_records(path, "a.stage") == [{"key": "a"}]
    path.write_text("")
    with pytest.raises(ValueError, match=r"r\.jsonl has changed since its stage ended"):
        finished_records(path, "a.stage")
    finish(Records(path))
    with pytest.raises(ValueError, match=r"r\.jsonl has no records"):
        finished_records(path, "a.stage")


def test_a_run_is_known_by_its_inputs_wherever_they_lie(tmp_path: Path) -> None:
    source, moved = tmp_path / "in.jsonl", tmp_path / "elsewhere" / "in.jsonl"
    source.write_text("1")
    open_run(tmp_path / "run", "", 0, [source])
    moved.parent.mkdir()
    source.rename(moved)
    refuse_other_inputs(tmp_path / "run", [moved])
    moved.write_text("2")
    with pytest.raises(ValueError, match=r"run was not made from .*elsewhere/in\.jsonl as it is now"):
        refuse_other_inputs(tmp_path / "run", [moved])


def test_a_checkpoints_fingerprint_is_of_its_weights_and_not_of_notes_beside_them(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(2 << 20))
    before = fingerprint(tmp_path)
    (tmp_path / "env.json").write_text("{}")
    assert fingerprint(tmp_path) == before
    weights.write_bytes(bytes((2 << 20) - 1) + b"x")
    changed = fingerprint(tmp_path)
    assert changed != before
    (tmp_path / "adapter_config.json").write_text('{"r": 8}')
    assert fingerprint(tmp_path) != changed


def test_a_served_checkpoints_fingerprint_leaves_out_its_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    without = fingerprint(tmp_path, weights=False)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert fingerprint(tmp_path, weights=False) == without != fingerprint(tmp_path)
    open_run(tmp_path / "run", "", 0, served=[tmp_path])
    assert json.loads((tmp_path / "run" / "inputs.json").read_text()) == {str(tmp_path): without}


def test_a_download_from_the_hub_is_known_by_its_commit(tmp_path: Path) -> None:
    folder = tmp_path / "models--a--b" / "snapshots" / ("0a" * 20)
    folder.mkdir(parents=True)
    assert fingerprint(folder) == fingerprint(folder, weights=False) == "0a" * 20


def test_a_folder_without_a_checkpoint_is_known_by_its_files(tmp_path: Path) -> None:
    """A folder of images, for example."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"1")
    before = fingerprint(tmp_path)
    (tmp_path / "images" / "a.png").write_bytes(b"2")
    assert fingerprint(tmp_path) != before


def test_seconds_add_up_over_interrupted_runs(tmp_path: Path) -> None:
    with timed(tmp_path / "typo", "stage"):
        pass
    assert not (tmp_path / "typo").exists()
    open_run(tmp_path, "", 0)
    for _ in range(2):
        with timed(tmp_path, "stage"):
            pass
    with pytest.raises(RuntimeError), timed(tmp_path, "stage"):
        raise RuntimeError
    assert set(json.loads((tmp_path / "seconds.json").read_text())) == {"stage"}
