"""Published outputs get the scores of the authors' own scorers, to the last cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.reproduced import table
from eval.score import ScoreConfig, score
from tests.published_outputs import DATA, absent, expected

pytestmark = absent


def result(benchmark: str, file: str, **flags: Any) -> dict[str, Any]:
    return score(ScoreConfig(benchmark, DATA / benchmark / file, DATA / benchmark, **flags))


def cells(made: dict[str, Any], breakdown: str) -> dict[str, list[int]]:
    return {part: [cell["correct"], cell["total"]] for part, cell in made["by"][breakdown].items()}


def test_there_is_something_to_meet() -> None:
    assert [len(expected(name)) for name in ("mathvista", "mathvision", "mmmu", "mmmu_pro", "puzzlevqa")] == [
        6,
        6,
        3,
        2,
        2,
    ]


@pytest.mark.parametrize("run", expected("mathvista"))
def test_mathvista(run: str) -> None:
    want = expected("mathvista")[run]
    official, published = (result("mathvista", want["file"], rule=rule) for rule in ("official", "as_published"))
    assert_cells(official, want["official_scorer_head"])
    assert published["correct"] == want["strict_integer_variant_correct"]
    # One run's published score fits today's reading of integers, and all others the earlier reading.
    assert_cells(official if run == "llavar" else published, want["published"])


def assert_cells(made: dict[str, Any], want: dict[str, Any]) -> None:
    assert (made["correct"], made["total"], made["missing"]) == (want["correct"], 1000, 0)
    for breakdown in ("question_type", "answer_type", "task", "skills"):
        assert cells(made, breakdown) == want[breakdown]


@pytest.mark.parametrize("run", expected("mathvision"))
def test_mathvision(run: str) -> None:
    want = expected("mathvision")[run]
    for rule, key in (("official", "official_scorer_rerun"), ("as_published", "published_result_json")):
        made = result("mathvision", want["file"], rule=rule)
        found = {f"-{level}": cell for level, cell in cells(made, "level").items()} | cells(made, "subject")
        found["-all"] = [made["correct"], made["total"]]
        assert {k: f"{c}/{n}={round(c / n * 100, 2)}%" for k, (c, n) in found.items()} == want[key]


def test_mmmu_by_subject_is_exact_where_the_rule_decides_and_drawn_on_request() -> None:
    want = expected("mmmu")["llava1.5_13b_by_subject"]
    ruled, drawn = (result("mmmu", want["file"], guess=guess) for guess in (False, True))
    assert ruled["correct"] == want["without_random_fallback"]["correct"]
    assert ruled["total"] - ruled["no_answer"] == want["without_random_fallback"]["items_scored_by_rule"]
    assert sorted(ruled["ids"]["no_answer"]) == want["random_fallback_ids"]
    seeded = want["official_seed42_all_subjects_in_one_process"]
    assert (drawn["correct"], round(drawn["accuracy"], 3)) == (seeded["correct"], seeded["accuracy_3dp"])
    assert (cells(drawn, "domain"), cells(drawn, "subject")) == (seeded["by_domain"], seeded["by_subject"])
    assert (ruled["random_fallbacks"], drawn["random_fallbacks"]) == (0, 2)


def test_mmmu_draws_in_the_order_of_the_subjects_and_not_of_the_file(tmp_path: Path) -> None:
    subjects = json.loads((DATA / "mmmu/outputs/llava1.5_13b_by_subject.json").read_text())
    for subject in ("Music", "Art"):
        subjects[subject][0]["response"] = "neither of these"
    drawn = []
    for order in (1, -1):
        (tmp_path / "o.json").write_text(json.dumps(dict(list(subjects.items())[::order])))
        drawn.append(score(ScoreConfig("mmmu", tmp_path / "o.json", DATA / "mmmu", guess=True)))
    assert drawn[0]["random_fallbacks"] == 4
    assert cells(drawn[0], "subject") == cells(drawn[1], "subject")


@pytest.mark.parametrize("run", [name for name in expected("mmmu") if "by_subject" not in name])
def test_mmmu_letters_as_they_are(run: str) -> None:
    want = expected("mmmu")[run]
    made, numbers = result("mmmu", want["file"]), want["official_eval_only"]
    assert (made["correct"], round(made["accuracy"], 3)) == (numbers["correct"], numbers["accuracy_3dp"])
    assert cells(made, "domain") == numbers["by_domain"]


@pytest.mark.parametrize("run", expected("mmmu_pro"))
def test_mmmu_pro(run: str) -> None:
    want = expected("mmmu_pro")[run]
    ruled, drawn = (result("mmmu_pro", want["file"], guess=guess) for guess in (False, True))
    assert ruled["correct"] == want["correct_by_rule"] == want["published_correct"]
    assert (ruled["total"], ruled["total"] - ruled["no_answer"]) == (want["n"], want["items_scored_by_rule"])
    assert sorted(ruled["ids"]["no_answer"]) == sorted(want["random_fallback_ids"])
    low, high = want["bounds_with_any_seed"]
    assert low <= drawn["correct"] <= high


@pytest.mark.parametrize("run", expected("puzzlevqa"))
def test_puzzlevqa(run: str) -> None:
    want, file = expected("puzzlevqa")[run], f"outputs/{run}.jsonl"
    official = result("puzzlevqa", file)
    assert official["total"] == 900
    assert cells(official, "category") == {c: [n["correct_saved_pred"], n["n"]] for c, n in want.items()}
    if run == "gpt4o_outputs_debate":  # it stores no responses
        published = {c: [n["published_success_rate_percent"], 100] for c, n in want.items()}
        assert cells(official, "category") == published
        return
    laxer = cells(result("puzzlevqa", file, rule="multiple_choice_2025"), "category")
    assert laxer == {c: [n["correct_root_scorer_2025_no_second_call"], n["n"]] for c, n in want.items()}


def test_puzzlevqa_from_the_responses_alone(tmp_path: Path) -> None:
    """The rule gives the stored predictions from the responses."""
    want = expected("puzzlevqa")["gpt4o_outputs_single"]
    source = DATA / "puzzlevqa/outputs/gpt4o_outputs_single.jsonl"
    bare = tmp_path / "bare.jsonl"
    bare.write_text(source.read_text().replace('"pred":', '"was_pred":'))
    made = score(ScoreConfig("puzzlevqa", bare, DATA / "puzzlevqa"))
    assert cells(made, "category") == {c: [n["correct_reextracted"], n["n"]] for c, n in want.items()}


def test_the_table_in_the_docs_is_what_the_command_prints() -> None:
    assert table(DATA) in (Path(__file__).parents[2] / "docs/evaluation.md").read_text()
