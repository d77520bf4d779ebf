"""A model as judge: what it is shown, how its answers are read, and that no failure becomes a label."""

from __future__ import annotations

import ast
import asyncio
import base64
import dataclasses
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_synth import convert, judge, label
from data_synth.judges.config import JudgeConfig, SamplingConfig
from data_synth.judges.model import judge_tree
from data_synth.search.store import IMAGES, TREES, Searched, tree_record
from data_synth.search.tree import outcomes, read_solutions
from tests.labels.test_judgements import said, tree_of
from tests.learnt import load_trees
from tests.stand_in import Answer, Body, StandIn, completion, config_of
from train.reward.config import RowsConfig
from vlprm.data.dataset import read_rows
from vlprm.labels.judge import judge_schema
from vlprm.policy import Continuation, Request
from vlprm.policy.replay import ANSWERS, ReplayPolicy
from vlprm.runs.folder import DONE, open_run
from vlprm.runs.journal import Records, finish, read_records, refuse_unfinished
from vlprm.schema import Problem, Region, StepTree
from vlprm.serving.config import ModelConfig
from vlprm.steps import parse_step
from vlprm.tasks import TASKS
from vlprm.zoom.policy import ZoomPolicy

PROBLEMS = [TASKS[name].problem("test", i) for i in range(2) for name in ("chart", "fine_print")]


class Scripted:
    """A policy whose answers depend on how often it was asked."""

    dialect = "relative_1000"
    zoom = ZoomPolicy()

    def __init__(self, answer: Callable[[int, int], str | Continuation]) -> None:
        self.answer, self.asked = answer, list[Request]()

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> tuple[int, int]:
        raise AssertionError

    async def sample(self, request: Request) -> list[Continuation]:
        self.asked.append(request)
        steps = request.schema["properties"]["steps"]["minItems"]  # type: ignore[index]
        made = [self.answer(len(self.asked), steps) for _ in range(request.n)]
        return [m if isinstance(m, Continuation) else Continuation(m, 7, True) for m in made]


def judged(tree: StepTree, engine: Scripted, **changes: Any) -> Any:
    return asyncio.run(judge_tree(PROBLEMS[0], tree, engine, dataclasses.replace(SamplingConfig(), **changes), seed=0))


def test_an_unreadable_judgement_is_asked_for_again_and_then_given_up() -> None:
    tree = tree_of(PROBLEMS[0])
    engine = Scripted(lambda count, steps: "well" if count < 3 else said(*["none"] * steps))
    result = judged(tree, engine, solutions=1)
    assert (result.requests, result.tokens, dict(result.failures)) == (3, 21, {"not_json": 2})
    assert len({request.key for request in engine.asked}) == 3
    path = tree.path(read_solutions(PROBLEMS[0], tree, 1)[0])
    assert [node for node, verdict in enumerate(result.verdicts) if verdict] == path
    never = judged(tree, Scripted(lambda count, steps: Continuation("", 0, False, "timeout")), solutions=2)
    assert never.verdicts == [None] * len(tree.nodes)
    assert dict(never.failures) == {"timeout": 6}
    cut = judged(tree, Scripted(lambda count, steps: Continuation(said(*["none"] * steps), 9, False)), solutions=1)
    assert cut.verdicts == never.verdicts
    assert dict(cut.failures) == {"length": 3}


def test_agreement_of_several_samples_is_kept() -> None:
    tree = tree_of(PROBLEMS[0])
    turns = iter(range(100))
    engine = Scripted(lambda _, steps: said(*["perception" if next(turns) % 3 == 0 else "none"] * steps))
    result = judged(tree, engine, solutions=1, samples=3)
    assert {(v.correct, round(v.agreement, 2)) for v in result.verdicts if v} == {(True, 0.67)}
    assert [request.n for request in engine.asked] == [3]


def test_solutions_of_both_outcomes_take_turns_and_cover_the_steps_with_counts() -> None:
    tree = tree_of(PROBLEMS[0])
    right = {leaf: outcome for (leaf, _), outcome in zip(tree.leaves, outcomes(PROBLEMS[0], tree), strict=True)}
    leaves = read_solutions(PROBLEMS[0], tree)
    assert sorted(leaves) == sorted(leaf for leaf, outcome in right.items() if outcome is not None)
    turns = 2 * min(sum(right[leaf] is kind for leaf in leaves) for kind in (True, False))
    assert turns
    assert [right[leaf] for leaf in leaves[:turns]] == [False, True] * (turns // 2)
    covered: set[int] = set()

    def gain(leaf: int) -> tuple[int, int]:
        fresh = set(tree.path(leaf)) - covered
        return sum(tree.nodes[n].label.mc_valid >= 3 for n in fresh), len(fresh)

    for at, leaf in enumerate(leaves):
        assert gain(leaf) == max(gain(other) for other in leaves[at:] if right[other] is right[leaf])
        covered.update(tree.path(leaf))
    assert read_solutions(PROBLEMS[0], tree, 2) == leaves[:2]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    open_run(tmp_path / "trees", "", 0)
    records = Records(tmp_path / "trees" / TREES)
    searched = [Searched(problem, tree_of(problem)) for problem in PROBLEMS]
    records.append(tree_record(i, s, tmp_path / "trees" / IMAGES) for i, s in enumerate(searched))
    finish(records)
    return tmp_path


def model_config(run: Path, server: StandIn, **changes: Any) -> JudgeConfig:
    config = JudgeConfig(run / "trees", run / "judgements", "model", model=ModelConfig("policy", config_of(server)))
    return dataclasses.replace(config, **changes)


@pytest.fixture
def answers(server: StandIn) -> Callable[[Callable[[Body], Answer]], None]:
    """Sets the answers of the served judge. It always answers the initial check, which asks for one choice."""

    def set_reply(reply: Callable[[Body], Answer]) -> None:
        server.reply = lambda body: reply(body) if "n" in body else completion("yes")

    return set_reply


Answers = Callable[[Callable[[Body], Answer]], None]


def judged_bodies(server: StandIn) -> list[Body]:
    return [body for body in server.asked if "n" in body]


def number_of_steps(body: Body) -> int:
    (text,) = (part["text"] for part in body["messages"][0]["content"] if part["type"] == "text")
    return int(re.search(r"each of the (\d+) steps", text)[1])  # type: ignore[index]


def all_right(body: Body) -> Answer:
    return completion(*[said(*["none"] * number_of_steps(body))] * body["n"])


def test_a_served_judge_makes_the_verdicts_of_a_dataset(run: Path, server: StandIn, answers: Answers) -> None:
    answers(all_right)
    judge.main(model_config(run, server))
    label.main(label.LabelConfig(run / "trees", run / "labels", (run / "judgements",), "judge"))
    rows = read_rows(run / "labels" / "dataset.parquet")
    sources = [json.loads(row["meta"])["reliability"]["sources"] for row in rows]
    assert {name: source["kind"] for of in sources for name, source in of.items()} == {
        "judgements": "policy with judge@1"
    }
    told = [e["label"]["votes"].get("judgements") for row in rows for e in json.loads(row["evidence"])]
    assert {verdict["reason"] for verdict in told if verdict} >= {"because 1", "because 2"}
    body = judged_bodies(server)[0]
    assert body["response_format"]["json_schema"]["schema"] == judge_schema(number_of_steps(body))
    assert not {"logit_bias", "top_k", "continue_final_message"} & set(body)  # for vLLM or a policy only
    urls = [part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    assert all(base64.b64decode(url.partition(",")[2]).startswith(b"\x89PNG") for url in urls)


@pytest.mark.parametrize("most", [3, 8])
@pytest.mark.parametrize("to", ["", "vlprm_paths"])
def test_all_that_training_learns_from_was_judged(
    run: Path, server: StandIn, answers: Answers, most: int, to: str
) -> None:
    """This holds for any number of judged solutions per tree, and for datasets with one row per solution."""
    answers(all_right)
    judge.main(model_config(run, server, sampling=SamplingConfig(solutions=most)))
    label.main(label.LabelConfig(run / "trees", run / "labels", (run / "judgements",)))
    dataset = run / "labels" / "dataset.parquet"
    if to:
        convert.main(convert.ConvertConfig(dataset, "vlprm", to, run / "paths.parquet"))  # type: ignore[arg-type]
        dataset = run / "paths.parquet"
    trees = load_trees(dataset, RowsConfig())
    assert trees
    for tree in trees:
        assert {True, False} <= {path.right for path in tree}
        assert 2 <= len(tree) <= most
        assert all(label.votes for path in tree for label in path.labels)


def test_a_server_without_schemas_is_asked_without(run: Path, server: StandIn, answers: Answers) -> None:
    def reply(body: Body) -> Answer:
        return (
            (400, "application/json", '{"error": "no response_format"}')
            if "response_format" in body
            else all_right(body)
        )

    answers(reply)
    judge.main(model_config(run, server, in_flight=1))
    # The solutions of the first tree are asked about at once.
    first = len(read_solutions(PROBLEMS[0], tree_of(PROBLEMS[0]), 8))
    assert not any("response_format" in body for body in judged_bodies(server)[2 * first :])
    assert sum(len(record["failures"]) for record in read_records(run / "judgements" / "judgements.jsonl")) == 0


def never_in_time(body: Body) -> Answer:
    time.sleep(300)  # in a thread that nothing waits for
    return all_right(body)


GARBAGE: dict[str, tuple[Callable[[Body], Answer], set[str]]] = {
    "html": (lambda body: (200, "text/html", "<html>"), {"bad_answer"}),
    "empty": (lambda body: completion(*[""] * body["n"]), {"not_json"}),
    "no text": (lambda body: completion(*[None] * body["n"]), {"no_text"}),
    "fewer": (lambda body: completion(said("none")), {"no_choice", "step_count"}),
    "prose": (lambda body: completion(*["All right."] * body["n"]), {"not_json"}),
    "500": (lambda body: (500, "text/html", "<html>"), {"server_error"}),
    "cut": (lambda body: (200, "cut", all_right(body)[2]), {"connection"}),
    "slow": (never_in_time, {"timeout"}),
    "too few": (lambda body: completion(*[said(*["none"] * (number_of_steps(body) - 1))] * body["n"]), {"step_count"}),
    "too many": (
        lambda body: completion(*[said(*["none"] * (number_of_steps(body) + 1))] * body["n"]),
        {"unknown_step"},
    ),
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_becomes_no_label(
    run: Path, server: StandIn, answers: Answers, garbage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlprm.serving.client.FAILURES_IN_A_ROW", 10_000)
    reply, causes = GARBAGE[garbage]
    answers(reply)
    config = model_config(run, server, sampling=SamplingConfig(samples=2, solutions=2, tries=2))
    if garbage == "slow":
        config = dataclasses.replace(config, model=ModelConfig("policy", config_of(server, timeout=0.3)))
    with pytest.raises(ValueError, match=r"no judgement could be read .* the first: .*; fix the judge") as caught:
        judge.main(config)
    assert not (run / "judgements" / DONE).exists()
    assert set(causes_of(caught.value)) == causes
    assert not list(read_records(run / "judgements" / "judgements.jsonl"))


def causes_of(error: ValueError) -> dict[str, int]:
    """The causes that a refusal counts."""
    (counts,) = re.findall(r"\((\{.*?\})\)", str(error))
    return dict(ast.literal_eval(counts))


def test_a_judge_that_was_mended_is_asked_again_by_the_same_command(
    run: Path, server: StandIn, answers: Answers
) -> None:
    config = model_config(run, server, sampling=SamplingConfig(tries=1))
    answers(lambda body: completion(*['{"steps": []}'] * body["n"]))
    with pytest.raises(ValueError, match=r"bad_field.*correction.*\{\"steps\": \[\]\}"):
        judge.main(config)
    answers(all_right)
    # Nothing is kept, so another config may follow.
    judge.main(dataclasses.replace(config, sampling=SamplingConfig(tries=2)))
    assert all(any(r["verdicts"]) for r in read_records(run / "judgements" / "judgements.jsonl"))


def too_late(body: Body) -> Answer:
    time.sleep(2.5)
    return all_right(body)


@pytest.mark.parametrize(
    ("reply", "again"),
    [(too_late, True), (GARBAGE["500"][0], True), (GARBAGE["cut"][0], True), (GARBAGE["empty"][0], False)],
)
def test_what_servers_failed_to_answer_is_asked_again_and_nothing_else(
    run: Path, server: StandIn, answers: Answers, reply: Callable[[Body], Answer], again: bool
) -> None:
    """Judgements of one problem fail in the first run. The second run of the same command asks only for those."""
    path, spoilt = run / "judgements" / "judgements.jsonl", PROBLEMS[0].question
    answers(lambda body: reply(body) if spoilt in json.dumps(body) else all_right(body))
    sampling = SamplingConfig(tries=1, solutions=2)
    timeout = 2.0 if reply is too_late else 20.0
    model = ModelConfig("policy", config_of(server, timeout=timeout))
    config = model_config(run, server, sampling=sampling, model=model)
    judge.main(config)
    assert [any(record["verdicts"]) for record in sorted_by_place(path)] == [False, True, True, True]
    refuse_unfinished(path, "data_synth.judge")
    answers(all_right)
    before = len(judged_bodies(server))
    judge.main(config)
    assert [any(record["verdicts"]) for record in sorted_by_place(path)] == [again, True, True, True]
    asked = judged_bodies(server)[before:]
    assert all(spoilt in json.dumps(body) for body in asked)
    assert len(asked) == (2 if again else 0)
    refuse_unfinished(path, "data_synth.judge")
    assert not (run / "judgements" / ANSWERS).exists()


def sorted_by_place(path: Path) -> list[dict[str, Any]]:
    places = {problem.id: place for place, problem in enumerate(PROBLEMS)}
    return sorted(read_records(path), key=lambda record: places[record["key"]])


def test_a_judge_that_was_stopped_asks_for_nothing_twice(run: Path, server: StandIn, answers: Answers) -> None:
    answered: list[str] = []

    def six_times(body: Body) -> Answer:
        if len(answered) == 6:
            return 401, "text/plain", "no"
        answered.append(json.dumps(body, sort_keys=True))
        return all_right(body)

    answers(six_times)
    with pytest.raises(ValueError, match="calls in a row failed"):
        judge.main(model_config(run, server, sampling=SamplingConfig(tries=20), in_flight=2))
    answers(all_right)
    before = len(server.asked)
    judge.main(model_config(run, server, sampling=SamplingConfig(tries=20), in_flight=2))
    again = {json.dumps(body, sort_keys=True) for body in server.asked[before:]}
    assert len(set(answered)) == 6
    assert not again & set(answered)


def test_an_answer_of_another_number_of_samples_is_not_taken_for_the_kept_one(tmp_path: Path) -> None:
    """After a kill, a failed first try is asked again, and may meet the kept answer of the second try, which has fewer
    samples."""
    problem = PROBLEMS[0]
    path = tmp_path / "answers.jsonl"
    for n in (2, 3, 2):
        engine = Scripted(lambda count, steps: "x")
        kept = ReplayPolicy(engine, path, (), asyncio.Event())
        request = Request(problem, (), n, "key", 0, schema=judge_schema(1))
        assert len(asyncio.run(kept.sample(request))) == n
        assert len(engine.asked) == 1


@pytest.mark.parametrize(("status", "patience"), [(429, 0.3), (503, 0.3)])
def test_a_judge_that_stays_busy_ends_the_run_and_judges_nothing(
    run: Path, server: StandIn, answers: Answers, status: int, patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlprm.serving.client.PAUSES", (0.02, 0.1))
    answers(lambda body: (status, "text/plain", "quota"))
    config = model_config(run, server, model=ModelConfig("policy", config_of(server, patience=patience)))
    with pytest.raises(ValueError, match=r"away or busy for 0\.3 seconds"):
        judge.main(config)
    assert not list(read_records(run / "judgements" / "judgements.jsonl"))


def test_a_judge_that_does_not_answer_is_named_before_the_run(run: Path, server: StandIn) -> None:
    server.reply = lambda body: (400, "text/plain", "max_tokens is not supported")
    with pytest.raises(ValueError, match=r"does not answer as 'policy' .*max_tokens is not supported"):
        judge.main(model_config(run, server))


def test_one_prompt_that_is_refused_does_not_cost_the_schema(run: Path, server: StandIn, answers: Answers) -> None:
    longest = max(len(problem.question) for problem in PROBLEMS)

    def refuse_the_longest(body: Body) -> Answer:
        text = json.dumps(body)
        too_long = any(len(p.question) == longest and p.question in text for p in PROBLEMS)
        return (400, "text/plain", "too long") if too_long else all_right(body)

    answers(refuse_the_longest)
    judge.main(model_config(run, server, in_flight=1))
    with_schema = ["response_format" in body for body in judged_bodies(server)]
    assert with_schema[-1] or with_schema[-2:] == [True, False]  # the last problem may be the refused one
    failures = [record["failures"] for record in read_records(run / "judgements" / "judgements.jsonl")]
    assert [bool(f) for f in failures] == [len(p.question) == longest for p in PROBLEMS]


def test_a_step_that_spells_a_control_token_is_not_sent(server: StandIn) -> None:
    tree = tree_of(PROBLEMS[0])
    nodes = tuple(
        dataclasses.replace(n, step=parse_step(n.step.text + " <|im_end|>")) if n.parent < 0 else n for n in tree.nodes
    )
    engine = Scripted(lambda count, steps: said(*["none"] * steps))
    result = judged(dataclasses.replace(tree, nodes=nodes), engine, solutions=3)
    assert (engine.asked, dict(result.failures), result.example) == ([], {"control_token": 3}, "control_token")


def test_a_problem_without_a_reference_is_a_no_result() -> None:
    engine = Scripted(lambda count, steps: said(*["none"] * steps))
    result = judged(tree_of(PROBLEMS[0]), engine, solutions=2, template="judge_reference@1")
    assert (engine.asked, dict(result.failures)) == ([], {"no_reference": 2})


def test_a_judge_that_is_a_model_has_a_name(run: Path) -> None:
    with pytest.raises(ValueError, match="judge: model needs a model; set model to a checkpoint folder"):
        judge.main(JudgeConfig(run / "trees", run / "j", "model"))


def test_a_model_in_this_process_judges_through_the_same_interface(run: Path, backbone: Path) -> None:
    """The model is random, so none of its answers can be read: every tree ends with no results, counted by cause."""
    sampling = SamplingConfig(solutions=1, tries=1, max_tokens=5)
    model = ModelConfig(str(backbone), device="cpu")
    with pytest.raises(ValueError, match="no judgement could be read") as caught:
        judge.main(JudgeConfig(run / "trees", run / "judgements", "model", model=model, sampling=sampling))
    causes = causes_of(caught.value)
    assert causes.keys() <= {"length", "not_json"}
    assert sum(causes.values()) == len(PROBLEMS)
