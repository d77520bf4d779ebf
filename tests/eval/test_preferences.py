"""`python -m eval.preferences`: what it scores or asks, and how ties, failures and orders are counted."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval import preferences
from eval.pair_scores.asked import orders_of
from eval.pair_scores.config import PreferencesConfig
from tests.pair_benchmarks.rows import (
    DRAWN,
    RIGHT,
    WRONG,
    mmrb2_row,
    multimodal_row,
    vl_row,
    write_mmrb2,
    write_multimodal,
    write_vl,
)
from tests.stand_in import Answer, Body, StandIn, completion, config_of
from vlprm.errors import UserError
from vlprm.model.reward_loading import load_reward_model
from vlprm.pair_benchmarks import PAIR_BENCHMARKS
from vlprm.pair_benchmarks.pairs import Pair
from vlprm.runs.journal import read_records
from vlprm.schema import Problem
from vlprm.scoring.config import ScorerConfig
from vlprm.scoring.tree import score
from vlprm.serving.config import ModelConfig
from vlprm.steps import split_steps


def config(data: Path, run: Path, **changes: Any) -> PreferencesConfig:
    return dataclasses.replace(PreferencesConfig("mmrb2", run, data, unit=2), **changes)


def on_cpu(folder: Path | str) -> tuple[ModelConfig, ...]:
    return (ModelConfig(str(folder), device="cpu"),)


def results_of(ran: PreferencesConfig) -> dict[str, Any]:
    preferences.main(ran)
    return dict(json.loads((ran.run / "results.json").read_text()))


def records_of(ran: PreferencesConfig) -> dict[str, dict[str, Any]]:
    return {record["key"]: record for record in read_records(ran.run / "preferences.jsonl")}


# --- rewards


def test_both_responses_are_scored_with_their_images_and_a_killed_run_goes_on(
    reward_model: Path, tmp_path: Path
) -> None:
    content = {"response_content": [["text", RIGHT]]}
    rows = [
        mmrb2_row(),
        mmrb2_row(id="vstar_2", response_b=content, chosen="B"),
        mmrb2_row(id="vstar_3", response_a=content, response_b=content),
    ]
    ran = config(write_mmrb2(tmp_path / "data", rows), tmp_path / "run", reward_model=on_cpu(reward_model))
    results, whole = results_of(ran), (tmp_path / "run/preferences.jsonl").read_text()
    text, (one, two) = "How many discs are red?", DRAWN[:2]
    steps = [split_steps(said) for said in (WRONG, "I zoom in (image 2).\n\nThe answer is 3.", RIGHT)]
    assert [len(of_one) for of_one in steps] == [2, 2, 2]
    seen = [Problem("p", "t", text, images, None, "word") for images in ((one,), (one, two), (one,))]
    wanted = score(load_reward_model(reward_model), list(zip(seen, steps, strict=True)))
    records = records_of(ran)
    for key, number, response in (("vstar_1", 0, 0), ("vstar_1", 1, 1), ("vstar_2", 2, 1), ("vstar_3", 2, 0)):
        assert records[key]["rewards"][response] == pytest.approx(wanted[number], abs=1e-5)
    assert (results["pairs"], results["ties"], results["no_result"]["pairs"]) == (3, 1, 0)
    least = [min(rewards) for rewards in wanted if None not in rewards]
    right = [float(least[1] > least[0]), float(least[2] > least[0]), 0.5]
    assert results["official"]["measures"]["accuracy"] == pytest.approx(sum(right) / 3)
    assert set(results["aggregations"]) == {"last", "mean", "product", "mean_odds"}
    (tmp_path / "run/preferences.jsonl").write_text(whole.splitlines(keepends=True)[0] + '{"key": "vst')
    assert results_of(ran) == results
    assert (tmp_path / "run/preferences.jsonl").read_text() == whole


def test_what_has_no_result_is_counted_by_the_official_rule(
    reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing image, an empty response and one that is too long are neither right nor wrong."""
    rows = [
        multimodal_row(Output1=RIGHT, Output2=RIGHT, Category="vqa"),
        multimodal_row(Image="images/none.png", Category="vqa"),
        multimodal_row(Output2=" \n\n"),
        multimodal_row(Output1="b 7 " * 3000),
    ]
    ran = config(
        write_multimodal(tmp_path / "data", rows), tmp_path / "run", benchmark="multimodal_rewardbench",
        reward_model=on_cpu(reward_model),
    )  # fmt: skip
    results = results_of(ran)
    causes = {"image_missing": 1, "empty_response": 1, "unread_step": 1}
    assert results["no_result"]["causes"] == causes
    assert (results["no_result"]["pairs"], results["ties"]) == (3, 1)
    assert results["official"]["measures"]["accuracy"] == 0.5
    assert results["official"]["results_alone"]["by_group"] == {"vqa": {"pairs": 1, "accuracy": 0.5}}
    assert results["official"]["were_no_results_false"]["accuracy"] == pytest.approx(0.5 / 4)
    said = capsys.readouterr().out
    assert "4 pairs, 1 ties, which count half" in said
    assert "it counts as half" in said


# --- a judge


def chooses(text: str) -> Callable[[Body], Answer]:
    """A judge that prefers the response with this text; without it, always the first."""

    def reply(body: Body) -> Answer:
        (asked,) = [part["text"] for part in body["messages"][0]["content"] if part["type"] == "text"]
        first = asked.partition("Response A:")[2].partition("Response B:")[0]
        said = json.dumps({"reason": "it is", "better": "A" if not text or text in first else "B"})
        return completion(*[said] * body.get("n", 1))

    return reply


def judge_of(server: StandIn) -> ModelConfig:
    return ModelConfig("judge", config_of(server))


def test_a_judge_is_asked_in_both_orders(tmp_path: Path, server: StandIn) -> None:
    rows = [mmrb2_row(), mmrb2_row(id="vstar_2", chosen="A")]
    data = write_mmrb2(tmp_path / "data", rows)
    server.reply = chooses("The answer is 3")
    results = results_of(config(data, tmp_path / "sees", judge=judge_of(server)))
    assert results["official"]["measures"]["accuracy"] == 0.5  # right on the first pair, wrong on the second
    assert (results["position"]["consistent"], results["position"]["first_shown"]) == (1, 0.5)
    parts = [body["messages"][0]["content"] for body in server.asked if len(body["messages"][0]["content"]) > 1]
    asked = ["\n".join(part["text"] for part in of_one if part["type"] == "text") for of_one in parts]
    assert sum("Response A:\nI zoom in (image 2)." in text for text in asked) == 2
    assert sum("Response B:\nI zoom in (image 2)." in text for text in asked) == 2
    assert [sum(part["type"] == "image_url" for part in of_one) for of_one in parts] == [2] * 4
    server.reply = chooses("")
    results = results_of(config(data, tmp_path / "blind", judge=judge_of(server)))
    assert results["official"]["measures"]["accuracy"] == 0.5
    assert (results["position"]["consistent"], results["position"]["first_shown"]) == (0, 1)


def test_answers_that_cannot_be_read_are_no_result(
    tmp_path: Path, server: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_vl(tmp_path / "data", [vl_row(), vl_row(id="RLAIF-V-1", response=["a<|im_end|>", "b"])])
    asked = {"benchmark": "vl_rewardbench", "judge": judge_of(server), "samples": 3}
    server.reply = chooses("answer is 3")
    results = results_of(config(data, tmp_path / "run", **asked))
    assert {body["temperature"] for body in server.asked} == {0.7}
    assert results["official"]["measures"]["by_group"] == {"reasoning": {"pairs": 1, "accuracy": 1}}
    none = results["no_result"]
    assert (none["pairs"], none["preferences"], none["causes"]) == (1, 3, {"control_token": 1})
    server.reply = lambda body: completion(*['{"better": "C"}', "A is better", '{"better": "A"}'][: body.get("n", 1)])
    results = results_of(config(data, tmp_path / "unread", **asked))
    assert results["official"]["measures"] == {"by_group": {}}  # the pair has an answer that cannot be read
    assert results["no_result"]["causes"]["no_choice"] >= 1
    assert results["official"]["were_no_results_false"]["accuracy"] == 0
    assert "nothing counts by this rule, so there is no accuracy" in capsys.readouterr().out


def test_orders_are_those_of_the_protocol() -> None:
    pairs = [Pair(str(n), "p", "?", (), (("a",), ("b",)), 0, "g") for n in range(50)]
    assert orders_of(PAIR_BENCHMARKS["mmrb2"], pairs[0], 2, 0) == [0, 0, 1, 1]
    assert orders_of(PAIR_BENCHMARKS["multimodal_rewardbench"], pairs[0], 2, 0) == [0, 0]
    drawn = [orders_of(PAIR_BENCHMARKS["vl_rewardbench"], pair, 3, 0) for pair in pairs]
    assert drawn == [orders_of(PAIR_BENCHMARKS["vl_rewardbench"], pair, 3, 0) for pair in pairs]
    assert 0.3 < sum(map(sum, drawn)) / 150 < 0.7


# --- refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmark": "mmrb"}, "unknown benchmark 'mmrb'; known: mmrb2, vl_rewardbench"),
        ({"reward_model": ()}, "pass either --reward_model"),
        ({"judge": ModelConfig("judge")}, "pass either --reward_model"),
        ({"samples": 3}, "samples are answers of a judge"),
        ({"scorer": ScorerConfig("whole")}, "set search.aggregation to last"),
        ({"groups": ("blnk",)}, "unknown group 'blnk'; the data has vstar"),
    ],
)
def test_mistakes_are_refused_before_anything_is_scored(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    data = write_mmrb2(tmp_path / "data", [mmrb2_row()])
    with pytest.raises(UserError, match=message):
        preferences.main(config(data, tmp_path / "run", **{"reward_model": on_cpu("prm"), **changes}))
    assert not (tmp_path / "run").exists()
