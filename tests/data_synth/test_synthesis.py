"""Trees, judges, fusion and the dataset, with a policy that is a careless teacher."""

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from data_synth.judges.oracle import oracle_judge
from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from data_synth.search.tree import is_mixed
from tests.conftest import solved
from tests.teacher import TeacherEngine
from vlprm.answers import is_correct
from vlprm.data.dataset import read_rows, row_paths, tree_row, write_dataset
from vlprm.policy import Continuation, Request
from vlprm.policy.rollout import rollouts
from vlprm.schema import Problem, Step, StepLabel, StepTree, TreeNode, Verdict, from_json, to_json
from vlprm.steps import parse_step
from vlprm.tasks import TASKS
from vlprm.zoom.policy import ZoomPolicy


def tree_of(problem: Problem, **changes: object) -> StepTree:
    config = dataclasses.replace(TreeSearchConfig(), **changes)  # type: ignore[arg-type]
    return asyncio.run(search(problem, TeacherEngine(), config, seed=3))


@pytest.mark.parametrize("name", TASKS)
def test_counts_of_a_tree_add_up(name: str) -> None:
    problem = TASKS[name].problem("train", 7)
    tree = tree_of(problem)
    leaves = dict(tree.leaves)
    assert tree.root.mc_total == 8
    for i, node in enumerate(tree.nodes):
        assert node.parent < i
        assert 0 <= node.label.mc_correct <= node.label.mc_valid <= node.label.mc_total
        if i in leaves:
            right = is_correct(leaves[i], str(problem.answer), problem.answer_type)
            assert (node.label.mc_correct > 0) == (right is True)
        else:  # only rollouts that started there, not those that passed through
            assert node.label.mc_total in (0, TreeSearchConfig().rollouts)
    assert from_json(StepTree, json.loads(json.dumps(to_json(tree)))) == tree


def test_the_search_finds_the_first_error() -> None:
    """With many rollouts, prefixes after the first true error have no right rollout, and prefixes before it have
    one."""
    problem = TASKS["chart"].problem("train", 3)
    tree = tree_of(problem, rollouts=24, searches=8)
    assert is_mixed(tree)
    for leaf, answer in tree.leaves:
        if is_correct(answer, str(problem.answer), problem.answer_type) is not False:
            continue
        path = tree.path(leaf)
        truth = TASKS["chart"].verdicts(problem, [tree.nodes[n].step for n in path])
        first = next(i for i, v in enumerate(truth) if v and not v.correct)
        rolled = [(i, tree.nodes[n].label) for i, n in enumerate(path[:-1]) if tree.nodes[n].label.mc_valid == 24]
        assert all((label.mc_correct > 0) == (i < first) for i, label in rolled)


def test_a_step_is_sampled_once_for_all_solutions_that_share_it() -> None:
    tree = tree_of(TASKS["count_grid"].problem("train", 1), searches=8)
    prefixes = [tuple(tree.nodes[n].step.text for n in tree.path(i)) for i in range(len(tree.nodes))]
    assert len(set(prefixes)) == len(prefixes)


def test_zooms_are_executed_and_refused_in_rollouts() -> None:
    problem = TASKS["fine_print"].problem("train", 0)

    class Zoomer(TeacherEngine):
        async def sample(self, request: Request) -> list[Continuation]:
            return [Continuation(self.text, 5, True)] * request.n

    engine = Zoomer()
    outcomes = {
        '[zoom] {"bbox_2d": [0, 0, 500, 500]}': "too_many_zooms",
        '[zoom] {"bbox_2d": [0, 0, 500]}': "wrong_arity",
        "[zoom] here": "bad_json",
        '[zoom] {"bbox_2d": [500, 0, 100, 100]}': "inverted",
        '[zoom] {"bbox_2d": [2000, 0, 2100, 100]}': "out_of_frame",
        "[answer] ": "no_answer",
        "I look at the plates, and see that each of them has some print on it.": "no_answer",
        "": "no_answer",
    }
    for text, stop in outcomes.items():
        engine.text = text
        (solution,) = asyncio.run(rollouts(engine, Request(problem, (), 1, "k", 0)))
        assert (solution.stop, solution.answer) == (stop, None)
    (right,) = asyncio.run(rollouts(TeacherEngine(slip_rate=0), Request(problem, (), 1, "k", 0)))
    assert right.answer == problem.answer
    assert [s.region is not None for s in right.steps] == [s.kind == "zoom" for s in right.steps]


def test_a_zoom_too_many_is_neither_executed_nor_sampled_on_from() -> None:
    problem = TASKS["fine_print"].problem("train", 0)

    class Zoomer(TeacherEngine):
        async def sample(self, request: Request) -> list[Continuation]:
            self.requests += 1
            return [Continuation('[zoom] {"bbox_2d": [0, 0, 500, 500]}', 5, True)]

    engine, most = Zoomer(), ZoomPolicy().max_zooms
    (solution,) = asyncio.run(rollouts(engine, Request(problem, (), 1, "k", 0)))
    assert [s.region is not None for s in solution.steps] == [True] * most
    assert (engine.requests, solution.tokens, solution.stop) == (most + 1, 5 * (most + 1), "too_many_zooms")
    (from_prefix,) = asyncio.run(rollouts(engine, Request(problem, solution.steps[:3], 1, "k", 0)))
    assert from_prefix.steps == solution.steps


def test_a_turn_is_cut_at_its_first_zoom() -> None:
    """Text after a zoom was written before its crop was seen, so it is sampled again with the crop in view."""
    problem = TASKS["fine_print"].problem("train", 0)
    zoom = '[zoom] {"bbox_2d": [0, 0, 500, 500]}'
    asked = []

    class Hasty(TeacherEngine):
        async def sample(self, request: Request) -> list[Continuation]:
            asked.append(request.steps)
            blind = f"[perception] a\n\n{zoom}\n\n[perception] b\n\n{zoom}\n\n[answer] blind"
            return [Continuation("[answer] seen" if request.steps else blind, 5, self.ended or bool(request.steps))]

    engine = Hasty()
    for engine.ended in (True, False):
        asked.clear()
        (solution,) = asyncio.run(rollouts(engine, Request(problem, (), 1, "k", 0)))
        assert [s.text for s in solution.steps] == ["[perception] a", zoom, "[answer] seen"]
        assert asked == [(), solution.steps[:2]]
        assert solution.steps[1].region is not None
        assert (solution.answer, solution.stop, solution.tokens) == ("seen", "answer", 10)


def test_the_stand_in_judge_errs_at_its_declared_rate() -> None:
    wrong = total = 0
    for i in range(150):
        problem = TASKS["chart"].problem("train", i)
        truth = TASKS["chart"].verdicts(problem, solved(problem))
        said = oracle_judge(TASKS["chart"], problem, solved(problem), 0.2, seed=1)
        assert said == oracle_judge(TASKS["chart"], problem, solved(problem), 0.2, seed=1)
        wrong += sum(a != b for a, b in zip(said, truth, strict=True))
        total += len(truth)
    assert wrong / total == pytest.approx(0.2, abs=0.06)
    assert oracle_judge(TASKS["chart"], problem, solved(problem), 0.0, seed=1) == truth


@pytest.mark.parametrize("name", TASKS)
def test_the_oracle_corrects_the_first_step_that_it_calls_wrong_and_errs_as_declared(name: str) -> None:
    family, right, total = TASKS[name], 0, 0
    for index in range(12):
        problem = family.problem("train", index)
        tree = tree_of(problem, searches=2)
        for leaf, _ in tree.leaves:
            steps = [tree.nodes[n].step for n in tree.path(leaf)]
            sure = oracle_judge(family, problem, steps, 0.0, seed=1)
            assert_one_correction(sure)
            assert_one_correction(oracle_judge(family, problem, steps, 0.5, seed=1))
            first = next((i for i, verdict in enumerate(sure) if verdict and verdict.correction), None)
            if first is None:
                continue
            verdict = sure[first]
            assert verdict
            (*_, after) = family.verdicts(problem, [*steps[:first], parse_step(verdict.correction)])
            assert after == Verdict(True)
            said = oracle_judge(family, problem, steps, 0.3, seed=1)[first]
            if said and said.correction:
                total += 1
                right += said.correction == verdict.correction
    assert total > 8
    assert 0.5 < right / total < 1


def assert_one_correction(said: Sequence[Verdict | None]) -> None:
    """Assert at most one correction, on the first step that is called wrong."""
    wrong = [verdict for verdict in said if verdict and not verdict.correct]
    assert not any(verdict.correction for verdict in said if verdict and verdict not in wrong[:1])


def test_what_the_judge_says_instead_is_the_correction_where_the_tree_has_none(tmp_path: Path) -> None:
    problem = TASKS["chart"].problem("train", 0)
    verdict = Verdict(False, "perception", correction="[perception] A is 3")
    wrong = StepLabel(votes={"judge": verdict}, target=0.0, error_kind="perception", rule="judge")
    right = StepLabel(8, 8, 8, target=1.0, rule="judge")
    texts = ("[perception] A is 2", "[answer] 1", "[perception] A is 4")

    def corrected(label: StepLabel, parents: Sequence[int]) -> Step | None:
        labels = (label, right, right)
        nodes = [TreeNode(parse_step(t), p, la) for t, p, la in zip(texts, parents, labels, strict=True)]
        tree = StepTree(problem.id, tuple(nodes), ((1, "1"),))
        write_dataset(tmp_path / "d.parquet", [tree_row(problem, tree, [False], {})])
        ((path,),) = map(row_paths, read_rows(tmp_path / "d.parquet"))
        return path.corrected[0]

    assert corrected(wrong, (-1, 0, 1)) == parse_step("[perception] A is 3")
    assert corrected(wrong, (-1, 0, -1)) == parse_step("[perception] A is 4")  # a sibling that led to right answers
    assert corrected(dataclasses.replace(wrong, target=1.0), (-1, 0, 1)) is None  # overruled


def test_a_dataset_keeps_everything(tmp_path: Path) -> None:
    problem = TASKS["fine_print"].problem("train", 4)
    tree = tree_of(problem)
    right = [is_correct(a, str(problem.answer), problem.answer_type) for _, a in tree.leaves]
    write_dataset(tmp_path / "d.parquet", [tree_row(problem, tree, right, {})])
    (row,) = read_rows(tmp_path / "d.parquet")
    assert row["images"][0]["bytes"] == problem.images[0]
    edited = {**row, "labels": [0.25] * len(tree.nodes)}  # the columns are what counts
    assert all(label.target == 0.25 for path in row_paths(edited) for label in path.labels)
    for path, (leaf, answer) in zip(row_paths(row), tree.leaves, strict=True):
        assert [tree.nodes[n].step for n in tree.path(leaf)] == list(path.steps)
        assert [tree.nodes[n].label for n in tree.path(leaf)] == list(path.labels)
        assert path.right == is_correct(answer, str(problem.answer), problem.answer_type)
        assert path.problem.images == problem.images


def test_datasets_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no dataset .*none\.parquet"):
        read_rows(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="not a readable parquet file"):
        read_rows(tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match=r"is a folder; name the file in it, such as .*/bad\.parquet$"):
        read_rows(tmp_path)
    with pytest.raises(ValueError, match="would be empty"):
        write_dataset(tmp_path / "d.parquet", [])
