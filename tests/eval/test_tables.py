"""From a run of benchmarks to the field's tables: the five of VL-PRM's paper on real items, with tiny random models."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from datasets import load_dataset

from eval.run import main
from eval.runs.config import ProblemSetConfig, RunConfig
from eval.runs.jobs import jobs_of
from eval.runs.problem_sets import open_problem_set
from eval.runs.results import POLICY, read_runs, row_title
from eval.table import main as print_table
from eval.table import published_rows, table_rows
from eval.tables.config import TableConfig
from eval.tables.formats import FORMATS, as_csv
from eval.tables.rows import TableRow
from eval.tables.statistics import differences
from eval.view import run_problems
from tests.docs.pages import ROOT
from vlprm.errors import UserError
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.runs.config import parse
from vlprm.runs.folder import open_run
from vlprm.runs.journal import Records, finish, read_records
from vlprm.runs.pools import PARAMETERS
from vlprm.schema import SCHEMA_VERSION, Solution, from_json
from vlprm.scoring.aggregate import AGGREGATIONS
from vlprm.scoring.config import ScorerConfig
from vlprm.scoring.tree import score_whole
from vlprm.search import SearchConfig
from vlprm.search.tokens import Spend
from vlprm.serving.config import ModelConfig
from vlprm.steps import split_steps
from vlprm.tasks import TASKS, problem_by_id
from vlprm.viewer.page import render_page
from vlprm.viewer.views import facts

DATA = Path(os.environ.get("VLPRM_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not DATA.is_dir() and "CI" not in os.environ, reason=f"no benchmark data at {DATA}; set VLPRM_DATA"
)
Folders = Callable[[str], Path]
DRAWN = (ProblemSetConfig("count_grid", problems=3), ProblemSetConfig("chart", problems=2))


@pytest.fixture
def reward_model(tiny_backbone: Folders, tmp_path: Path) -> Path:
    checkpoint = load_reward_model(tiny_backbone("qwen2_5_vl"), new_head="step")
    torch.nn.init.normal_(checkpoint.model.score.weight, std=0.2, generator=torch.Generator().manual_seed(0))
    save_reward_model(checkpoint, tmp_path / "prm", CheckpointConfig(head="step"))
    return tmp_path / "prm"


def tiny(run: Path, policy: Path, reward_model: Path | None, **fields: Any) -> RunConfig:
    search = SearchConfig(n=3, width=2, max_tokens=8, max_steps=2)
    asked = {"benchmarks": DRAWN, "methods": ("best_of_n", "step_beam"), "search": search, "unit": 2}
    models = [folder and ModelConfig(str(folder), device="cpu") for folder in (policy, reward_model)]
    return RunConfig(run, models[0], reward_model=models[1], **{**asked, **fields})


def text_of(run: Path, capsys: pytest.CaptureFixture[str], **fields: Any) -> str:
    capsys.readouterr()
    print_table(TableConfig((run,), **fields))
    return capsys.readouterr().out


@needs_data
@pytest.mark.parametrize("recipe", ["vl_prm_3b", "vl_prm_7b"])
def test_the_five_benchmarks_of_vl_prm_make_a_table(
    recipe: str, tiny_backbone: Folders, reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs the recipe itself with other models, data and size."""
    config = parse(RunConfig, ["--config", str(ROOT / f"configs/eval/{recipe}.yaml")])
    subset = {"mathvista": "images", "mathvision": "images", "mmmu": "images"}
    asked = tuple(
        replace(b, data=DATA / b.name, subset=subset.get(b.name, b.subset), problems=2) for b in config.benchmarks
    )
    local = tiny(tmp_path / "run", tiny_backbone("qwen2_5_vl"), reward_model, benchmarks=asked, methods=config.methods)
    main(local)
    names = [b.name for b in config.benchmarks]
    assert len(names) == 5
    header, *rows = csv.reader(io.StringIO(text_of(tmp_path / "run", capsys, format="csv")))
    assert header[1:6] == names
    assert len(rows) >= 4
    records = list(read_records(tmp_path / "run" / "records.jsonl"))
    assert {r["benchmark"] for r in records} == set(names)
    shown = run_problems(tmp_path / "run", {})
    assert len(shown) == 10
    assert all(shown.images(i) for i in range(10))
    assert [shown.view(i).benchmark for i in range(10)] == [name for name in names for _ in range(2)]
    assert all(len(shown.view(i).candidates) == 3 for i in range(10))
    assert [shown.facts(i) for i in range(10)] == [facts(shown.view(i)) for i in range(10)]
    assert len(render_page("a run", [], shown)) > 10_000
    assert not [r for r in records if r["failure"]]


def test_a_record_has_the_truth_of_drawn_steps_and_the_reward_of_the_whole(
    tiny_backbone: Folders, reward_model: Path, tmp_path: Path
) -> None:
    main(tiny(tmp_path / "run", tiny_backbone("qwen2_5_vl"), reward_model, methods=("best_of_n",), whole=True))
    checkpoint, records = load_reward_model(reward_model), list(read_records(tmp_path / "run" / "records.jsonl"))
    assert [r["benchmark"] for r in records] == ["count_grid", "chart"] * 2 + ["count_grid"]  # they take turns
    for record in records:
        problem = problem_by_id(record["problem"], TASKS)
        asked = [(problem, from_json(Solution, c["solution"]).steps) for c in record["candidates"]]
        for stored, reward, (_, steps) in zip(record["candidates"], score_whole(checkpoint, asked), asked, strict=True):
            assert stored["whole"] == (None if reward is None else pytest.approx(reward, abs=1e-5))
            truth = TASKS[problem.task].verdicts(problem, steps)
            assert [t and t["correct"] for t in stored["truth"]] == [v and v.correct for v in truth]


def test_a_killed_run_ends_as_one_that_was_not(tiny_backbone: Folders, reward_model: Path, tmp_path: Path) -> None:
    policy = tiny_backbone("qwen2_5_vl")
    main(tiny(tmp_path / "whole", policy, reward_model))
    main(tiny(tmp_path / "cut", policy, reward_model))
    path = tmp_path / "cut" / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:40])
    (tmp_path / "cut" / "done.json").unlink()
    main(tiny(tmp_path / "cut", policy, reward_model))
    assert timeless(path) == timeless(tmp_path / "whole" / "records.jsonl")


def timeless(path: Path) -> list[dict[str, Any]]:
    return [{**r, "cost": {**r["cost"], "seconds": 0}} for r in read_records(path)]


def test_shards_are_one_run_and_records_are_plain_json(
    tiny_backbone: Folders, reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tiny_backbone("qwen2_5_vl")
    main(tiny(tmp_path / "whole", policy, reward_model))
    for i in range(2):
        main(tiny(tmp_path / f"shard{i}", policy, reward_model, shard=f"{i}/2"))
    whole = read_runs((tmp_path / "whole",), "methods")
    parts = read_runs((tmp_path / "shard0", tmp_path / "shard1"), "methods")
    with pytest.raises(UserError, match=r"shard0 has .* again, as another folder of .*; give each once"):
        read_runs((tmp_path / "shard0", tmp_path / "shard0"), "methods")
    cells = [[(row.title, row.cells) for one in runs for row in table_rows(one, one.pools)] for runs in (whole, parts)]
    assert any(
        "at the tokens of step beam search (difference: step beam search minus this row)" in title
        for title, _ in cells[0]
    )
    assert cells[0] == cells[1]
    path = tmp_path / "whole" / "records.jsonl"
    frame = pandas.read_json(path, lines=True)
    assert len(frame) == 10
    assert load_dataset("json", data_files=str(path), split="train").num_rows == 10
    for name in ("text", "markdown", "latex", "csv"):
        assert "count" in text_of(tmp_path / "whole", capsys, format=name)


def second_best(k: int) -> float:
    return 0.9 if k == 1 else 0.2


def run_of(
    folder: Path,
    right: list[list[bool | None]],
    benchmark: str = "b",
    reward: Callable[[int], float] = second_best,
    **changes: Any,
) -> Path:
    """A run whose pools have this accuracy; by default, their second candidates have the best rewards."""
    config = {
        "policy": {"checkpoint": "p"},
        "reward_model": {"checkpoint": "r/prm"},
        "search": {"aggregation": "min"},
        "methods": ["best_of_n", "dvts"],
        "benchmarks": [],
        "shard": "0/1",
        **changes,
    }
    open_run(folder, json.dumps(config), 0)
    (folder / PARAMETERS).write_text(json.dumps({"policy": 5, "scorer": 3, "critic": 2}))
    records = Records(folder / "records.jsonl")
    for i, pool in enumerate(right):
        stored = [
            {"answer": None if r is None else str(r), "vote": None if r is None else str(r), "right": r,
             "solution": {"tokens": 4, "read": k}, "read": 6 if k == 0 else 3,
             "scores": [{"correct": reward(k), "perception": None, "reasoning": None}], "whole": None, "truth": None}
            for k, r in enumerate(pool)
        ]  # fmt: skip
        cost = {"policy_sampled": 4 * len(pool), "policy_read": 10 + sum(range(len(pool))), "critic_sampled": 0,
                "critic_read": 0, "scorer_read": 3 + 3 * len(pool), "seconds": 2.0}  # fmt: skip
        named = {"key": f"b/{i}/pool", "at": i, "benchmark": benchmark, "problem": str(i), "method": "pool"}
        records.append(
            [
                {
                    **named,
                    "schema": SCHEMA_VERSION,
                    "failure": "",
                    "question_type": "",
                    "candidates": stored,
                    "shares": [],
                    "cost": cost,
                }
            ]
        )
    finish(records)
    return folder


def test_rows_say_what_the_records_say(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "r", [[False, True, False], [True, False, True], [None, True, None]])
    (one,) = read_runs((folder,), "methods")
    rows = {row.title: row for row in table_rows(one, one.pools)}
    assert rows["p"].cells["b"] == pytest.approx((1 / 3 + 2 / 3 + 1) / 3)  # none is chosen if there is an answer
    assert rows["+ best of N by step rewards: min with r"].cells["b"] == pytest.approx(2 / 3)
    assert rows["+ majority vote"].cells["b"] == pytest.approx(2 / 3)
    assert rows["+ oracle"].cells["b"] == 1.0
    costs = {title: (row.n, row.spend, row.seconds) for title, row in rows.items()}
    # The policy samples 4 tokens a candidate, and reads the prompt of 10 and, after zooms, 0, 1 and 2 again.
    alone, unscored = Spend(4, 11, 2 * 5 * 15), Spend(12, 13, 2 * 5 * 25)
    scored = Spend(12, 25, 2 * (5 * 25 + 3 * 12))
    assert costs == {
        "p": (1, alone, None), "+ majority vote": (3, unscored, None), "+ oracle": (3, unscored, None),
        "+ vote weighted by the reward model: min with r": (3, scored, 2),
        "+ best of N by step rewards: min with r": (3, scored, 2),
    }  # fmt: skip
    assert (one.no_results, one.candidates) == (2, 9)
    difference = rows["+ oracle"].difference
    assert difference is not None
    assert difference[0] == pytest.approx(1 / 3)
    assert difference[1] <= difference[0] <= difference[2]
    assert differences({"other": {"b": {"0": 1.0}}, "base": {"b": {"1": 1.0}}}, "base") == {}


def test_a_table_does_not_depend_on_who_was_done_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right: list[list[bool | None]] = [[i % 3 == 0, i % 2 == 0, i % 5 == 0] for i in range(40)]
    folder = run_of(tmp_path / "r", right)
    first = text_of(folder, capsys)
    path = folder / "records.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    finish(Records(path))
    assert text_of(folder, capsys) == first


def test_other_layouts_have_every_rule_and_every_n(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Best of n is exact over the subsets of the pool; here the right candidate has the best reward."""
    folder = run_of(tmp_path / "r", [[False, True, False, False]])
    rules = text_of(folder, capsys, layout="aggregations", format="csv")
    assert all(f"best of N by step rewards: {rule.replace('_', ' ')}" in rules for rule in AGGREGATIONS)
    (one,) = read_runs((folder,), "curve")
    rows = {row.title: (row.cells["b"], row.spend and row.spend.tokens) for row in table_rows(one, one.pools)}
    assert rows == {
        "p": (0.25, 4 + 10 + 1.5),
        "+ best of 1 with r": (0.25, 4 + 10 + 6),
        "+ best of 2 with r": (0.5, 8 + 10 + 1 + 9),
        "+ best of 4 with r": (1.0, 16 + 10 + 6 + 15),
    }


@pytest.mark.parametrize("right", [[True, False, False, False], [False, False, False, True]])
def test_candidates_of_equal_reward_are_as_good_as_each_other(tmp_path: Path, right: list[bool | None]) -> None:
    """In any order, candidates with equal rewards give each row the pool's mean accuracy."""
    folder = run_of(tmp_path / "r", [right], reward=lambda k: 0.5)
    (one,) = read_runs((folder,), "curve")
    assert {row.title: row.cells["b"] for row in table_rows(one, {})} == dict.fromkeys(
        ("p", "+ best of 1 with r", "+ best of 2 with r", "+ best of 4 with r"), 0.25
    )
    (one,) = read_runs((folder,), "methods")
    assert {row.title: row.cells["b"] for row in table_rows(one, {})}["+ best of N by step rewards: min with r"] == 0.25


def test_a_table_says_how_many_problems_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_of(tmp_path / "r", [[False, True], [True, False], [True, True]])
    print_table(TableConfig((folder,), format="csv"))
    said = capsys.readouterr()
    header, *rows = csv.reader(io.StringIO(said.out))
    assert {row[header.index("problems")] for row in rows} == {"3"}
    assert "p + r: problems: b 3; 0 of 6 candidates without an answer" in said.err


def test_a_problem_of_which_all_candidates_failed_is_in_every_row(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "r", [[False, True], [None, None]])
    path = folder / "records.jsonl"
    first, second = path.read_text().splitlines(keepends=True)
    path.write_text(first + re.sub(r'"scores": \[[^]]*\]', '"scores": [null]', second))
    (folder / "done.json").unlink()
    finish(Records(path))
    (one,) = read_runs((folder,), "methods")
    assert {row.title: row.cells["b"] for row in table_rows(one, {})}["+ best of N by step rewards: min with r"] == 0.5
    assert all(len(values["b"]) == 2 for values in one.rows.values())


def test_a_table_has_intervals_the_best_in_bold_and_a_rule_between_policies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run_of(tmp_path / "a", [[False, True], [True, False], [False, True], [False, False]])
    second = run_of(tmp_path / "b", [[True, False], [True, True]], policy={"checkpoint": "q"}, reward_model=None)

    def printed(**fields: Any) -> list[str]:
        capsys.readouterr()
        print_table(TableConfig((first, second), **fields))
        return capsys.readouterr().out.splitlines()

    latex, markdown = printed(format="latex"), printed(format="markdown")
    assert "\\usepackage{booktabs}" in latex[0]
    assert latex[0].startswith("%")
    (other,) = (line for line in latex if "midrule q &" in line)
    assert r"\textbf{75.0} (50.0 to 100.0)" in other
    cells = [line.removeprefix("| ").split(" | ") for line in markdown]
    rows = {title: cell for title, cell, *_ in cells[: [line[0] for line in cells].index("q")]}
    assert rows["accuracy % (95% interval)"] == "b"
    assert rows["+ best of N by step rewards: min with r"].startswith("**50.0** (")
    assert rows["+ vote weighted by the reward model: min with r"].startswith("**50.0** (")
    assert rows["+ majority vote"] == "37.5 (12.5 to 50.0)"
    assert not [row for row in rows if row.startswith("+ oracle") and "**" in rows[row]]
    assert sum(line.startswith(("├", "┡")) for line in printed()) == 2
    header, *lines = csv.reader(io.StringIO("\n".join(printed(format="csv"))))
    (own,) = (line for line in lines if line[0] == "q")
    assert [own[header.index(name)] for name in ("b", "b low", "b high", "N")] == ["75.0", "50.0", "100.0", "1"]


def test_rows_name_the_models_they_use() -> None:
    models = {"policy": "p", "reward_model": "runs/r/prm", "critic": "c"}
    settings = {role: {"checkpoint": path} for role, path in models.items()}
    assert [row_title(settings, name) for name in (POLICY, "majority", "oracle", "dvts", "refined_best_of_n")] == [
        "p", "+ majority vote", "+ oracle", "+ DVTS with r", "+ Refined Best-of-N with r and c"
    ]  # fmt: skip
    assert row_title({"policy": {"checkpoint": "p"}, "reward_model": None}, "self_consistency") == "+ majority vote"


def test_a_pool_that_was_not_scored_costs_no_scores(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "r", [[False, True]], reward_model=None)
    path = folder / "records.jsonl"
    stored = json.loads(path.read_text())
    stored["candidates"] = [{**c, "scores": [], "read": 0} for c in stored["candidates"]]
    path.write_text(json.dumps(stored) + "\n")
    (folder / "done.json").unlink()
    finish(Records(path))
    (one,) = read_runs((folder,), "methods")
    costs = {row.title: (row.spend and row.spend.tokens, row.seconds) for row in table_rows(one, one.pools)}
    assert costs == {"p": (4 + 10.5, None), "+ majority vote": (8 + 11, 2), "+ oracle": (8 + 11, 2)}


def searched(folder: Path, spent: list[int], right: bool = True) -> None:
    """A search method's record and the pool's record for each problem, at these costs."""
    records = Records(folder / "records.jsonl")
    (folder / "done.json").unlink()
    for i, tokens in enumerate(spent):
        cost = {"policy_sampled": 5, "policy_read": tokens - 12, "critic_sampled": 2, "critic_read": 2,
                "scorer_read": 3, "seconds": 1.0}  # fmt: skip
        candidate = {"answer": "x", "vote": "x", "right": right, "scores": [], "read": 0,
                     "solution": {"tokens": 1, "read": 0}, "whole": None, "truth": None}  # fmt: skip
        named = {"key": f"b/{i}/dvts", "at": i, "benchmark": "b", "problem": str(i), "method": "dvts"}
        said = {"schema": SCHEMA_VERSION, "failure": "", "candidates": [candidate], "shares": [1.0], "cost": cost}
        records.append([{**named, **said}])
    finish(records)


def test_below_a_search_stands_best_of_n_at_its_tokens(tmp_path: Path) -> None:
    """The first 1, 2 and 3 candidates cost 20, 28 and 37 tokens, and the second has the best reward."""
    folder = run_of(tmp_path / "r", [[False, True, True], [False, True, True], [True, False, True]])
    searched(folder, [27, 28, 39])
    (one,) = read_runs((folder,), "methods")
    titles = [row.title for row in table_rows(one, one.pools)]
    title = "+ best of N at the tokens of DVTS (difference: DVTS minus this row)"
    assert titles.index(title) == titles.index("+ DVTS with r") + 1
    row = {row.title: row for row in table_rows(one, one.pools)}[title]
    assert row.cells == {"b": pytest.approx(1 / 3)}  # no, yes, no
    assert row.spend is not None
    assert (row.n, row.spend.tokens, row.seconds) == (2, pytest.approx((20 + 28 + 37) / 3), None)
    assert row.difference is not None
    assert row.difference[0] == pytest.approx(2 / 3)
    assert row.difference[1] < row.difference[0] < row.difference[2]
    assert not any("at the tokens of" in row.title for row in table_rows(one, {}))


def test_below_a_search_stands_best_of_n_at_its_flops(tmp_path: Path) -> None:
    """Only the policy has parameters here: of 28 tokens the search's policy has 21, which pay for two candidates of 14,
    19 and 25. A run that does not state its parameters has no FLOPs."""
    folder = run_of(tmp_path / "r", [[False, True, True]])
    searched(folder, [28])
    (folder / PARAMETERS).write_text(json.dumps({"policy": 10, "scorer": 0, "critic": 0}))
    (one,) = read_runs((folder,), "methods")
    rows = {row.title: row for row in table_rows(one, one.pools)}
    assert rows["+ DVTS with r"].spend == Spend(7, 21, 2 * 21 * 10)
    row = rows["+ best of N at the FLOPs of DVTS (difference: DVTS minus this row)"]
    assert (row.n, row.spend) == (2, Spend(8, 20, 2 * 19 * 10))
    (folder / PARAMETERS).unlink()
    (one,) = read_runs((folder,), "methods")
    spends = [row.spend for row in table_rows(one, one.pools)]
    assert all(spend is not None and spend.flops is None for spend in spends)
    assert not any("FLOPs" in row.title for row in table_rows(one, one.pools))


def test_a_run_that_did_not_count_what_is_read_is_refused(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "r", [[False, True]])
    path = folder / "records.jsonl"
    path.write_text(path.read_text().replace('"policy_read"', '"policy_tokens"'))
    (folder / "done.json").unlink()
    finish(Records(path))
    with pytest.raises(ValueError, match="does not count the tokens that the policy reads; remove the run folder"):
        read_runs((folder,), "methods")


def test_a_pool_that_ends_first_is_said_to_and_may_be_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_of(tmp_path / "r", [[False], [False]])
    searched(folder, [30, 41])
    assert "(pool too small for 1 of 2 problems)" in text_of(folder, capsys)
    larger = run_of(tmp_path / "larger", [[False, True, True], [False, True, True]], search={"aggregation": "last"})
    shown = text_of(folder, capsys, pool=larger, format="csv")
    assert "too small" not in shown
    (row,) = [line for line in csv.reader(io.StringIO(shown)) if "at the tokens of" in line[0]]
    assert row[1:4] == ["100.0", "100.0", "+0.0 (+0.0 to +0.0)"]
    other = run_of(tmp_path / "other", [[True], [True]], policy={"checkpoint": "q"})
    with pytest.raises(ValueError, match="has another policy or reward model than p"):
        print_table(TableConfig((folder,), pool=other))


def test_quoted_rows_name_their_source_and_fill_our_columns() -> None:
    quoted = published_rows(ROOT / "eval/published.yaml")
    assert all("[arXiv" in row.title for row in quoted)
    own = TableRow("ours", {"mathvista": 0.5}, None, 1, Spend(2, 3, 5e12), 3.0)
    header, first, *_ = csv.reader(io.StringIO(as_csv([own, *quoted])))
    assert header[1] == "mathvista"
    assert first[1] == "50.0"
    assert dict(zip(header, first, strict=True)).items() >= {"tokens": "5", "tokens read": "3", "TFLOPs": "5"}.items()
    assert set(FORMATS) == {"text", "markdown", "latex", "csv", "model-index", "eval-results"}


@pytest.mark.parametrize(("text", "said"), [("label: x", "is not a list of rows"), ("- label: x", "has no source")])
def test_a_file_without_quoted_rows_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "rows.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        published_rows(tmp_path / "rows.yaml")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"benchmarks": (ProblemSetConfig("mathvistas"),)}, "did you mean 'mathvista'"),
        (
            {"benchmarks": (ProblemSetConfig("chart"),)},
            "chart has unlimited problems; set problems to a number above 0",
        ),
        ({"benchmarks": ()}, "benchmarks is empty; name at least one"),
        ({"methods": ("best_of_m",)}, "did you mean 'best_of_n'"),
        ({"methods": ("best_of_n",), "reward_model": None}, "best_of_n needs a reward model; set reward_model"),
        ({"methods": ("refined_best_of_n",)}, "refined_best_of_n needs a critic; set critic"),
        (
            {"whole": True, "methods": ("self_consistency",), "reward_model": None},
            "whole needs a reward model that scores",
        ),
        ({"whole": True, "scorer": ScorerConfig("critiques")}, "whole needs a reward model that scores steps in this"),
        ({"shard": "2/2"}, "shard '2/2' is not i/n with i from 0 to n-1"),
        ({"benchmarks": DRAWN + DRAWN}, "named twice"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_begins(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    config = tiny(tmp_path, Path("builtin/policy"), Path("r"))
    with pytest.raises(ValueError, match=said):
        jobs_of(replace(config, **changes))


def test_tables_refuse_what_they_cannot_compare(tmp_path: Path) -> None:
    first = run_of(tmp_path / "a", [[True, False]])
    other = run_of(tmp_path / "b", [[True, False]], search={"aggregation": "last"})
    with pytest.raises(ValueError, match="have different settings; print a table of each"):
        read_runs((first, other), "methods")
    with pytest.raises(ValueError, match=r"has no config\.yaml"):
        read_runs((tmp_path,), "methods")
    path = first / "records.jsonl"
    path.write_text(path.read_text().replace(f'"schema": {SCHEMA_VERSION}', '"schema": 0'))
    (first / "done.json").unlink()
    finish(Records(path))
    with pytest.raises(ValueError, match=rf"has schema 0, but this code reads {SCHEMA_VERSION}; repeat the run"):
        read_runs((first,), "methods")


@needs_data
def test_the_official_rule_reads_a_tagged_answer_alone() -> None:
    """In a solution with steps, letters of other steps are not answers. A solution that was cut short has none."""
    asked = open_problem_set(ProblemSetConfig("mmmu", DATA / "mmmu", "images", problems=1))
    problem = asked.problem(asked.ids[0])
    steps = tuple(split_steps(f"[reasoning] A is tempting, (B) too\n\n[answer] {problem.answer}"))
    solution = Solution(problem.id, steps, None, "answer", 1)
    assert asked.read(problem, solution).correct
    assert asked.read(problem, replace(solution, stop="length")).answer is None
