"""Search methods, with a policy that counts to four and slips, and a scorer that knows the truth."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

import pytest

from vlprm.policy import Continuation, Request, read_by_first
from vlprm.policy.critique import Critique, critique_of, critique_text
from vlprm.prompts import CritiqueTemplate
from vlprm.schema import Problem, Region, Solution, Step, StepScore
from vlprm.scoring import Scored
from vlprm.search import METHODS, Cost, Critic, ScoredSolution, SearchConfig, SearchResult, select, solve
from vlprm.search.allocated import sound_beginning
from vlprm.search.guided import allotted
from vlprm.search.refined import corrected
from vlprm.search.regenerated import before_wrong
from vlprm.search.sampled import is_decided
from vlprm.steps import SEPARATOR, parse_step
from vlprm.tasks.scene import rng_for
from vlprm.zoom.policy import ZoomPolicy

PROBLEMS = [Problem(str(i), "counting", "Count to four.", (), "4", "integer") for i in range(40)]
RIGHT = [parse_step(text) for text in ("[reasoning] 1", "[reasoning] 2", "[reasoning] 3", "[answer] 4")]
OWN = "docs.examples.twice_the_best"
PROMPT = 20  # tokens of the problem
STEPWISE = ("greedy", "step_beam", "duplicating_beam", "dvts", "rebase")


class Counting:
    """Each step is right with this probability; the answer is right only after right steps."""

    dialect = "relative_1000"
    zoom = ZoomPolicy()

    def __init__(self, right: float = 0.7) -> None:
        self.right = right

    async def sample(self, request: Request) -> list[Continuation]:
        return read_by_first([self._one(request, i) for i in range(request.n)], PROMPT + 2 * len(request.steps))

    def _one(self, request: Request, index: int) -> Continuation:
        rng = rng_for(request.seed, request.key, index)
        steps = [step.text for step in request.steps]
        while len(steps) < len(RIGHT):
            right = RIGHT[len(steps)].text
            fits = steps == [step.text for step in RIGHT[: len(steps)]] or len(steps) < 3
            steps.append(right if fits and rng.random() < self.right else right[:-1] + str(rng.randint(5, 9)))
            if request.one_step:
                break
        new = steps[len(request.steps) :]
        goes_on = request.one_step and len(steps) < len(RIGHT)
        return Continuation(SEPARATOR.join(new), 2 * len(new), not goes_on, goes_on=goes_on)

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> tuple[int, int]:
        raise AssertionError


class Truth:
    """Scores steps by the ground truth. It reads the problem once per attempt, and one token per step each time. If
    `knows` is false, it gives no scores."""

    def __init__(self, knows: bool = True, sd: float | None = 0.1) -> None:
        self.knows, self.sd = knows, sd
        self.asked: list[int] = []
        self.attempts: set[Hashable] = set()

    async def score(self, problem: Problem, solutions: Sequence[Sequence[Step]], attempt: Hashable = None) -> Scored:
        self.asked.append(len(solutions))
        first, *others = map(len, solutions)
        read = [first + PROMPT * (attempt not in self.attempts), *others]
        self.attempts.add(attempt)
        return Scored([self._scores(problem, steps) for steps in solutions], read)

    def _scores(self, problem: Problem, steps: Sequence[Step]) -> list[StepScore | None]:
        right = [step == RIGHT[k] for k, step in enumerate(steps)]
        return [StepScore(0.9 if r else 0.1, None, None, sd=self.sd) if self.knows else None for r in right]

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        pass


CHECK = CritiqueTemplate("Check.", verdict_last=False)


class KnowingCritic:
    """Writes the true critique of the last step in the request."""

    dialect = "relative_1000"
    zoom = ZoomPolicy()

    def __init__(self, text: str | None = None) -> None:
        self.text = text

    async def sample(self, request: Request) -> list[Continuation]:
        last, right = request.steps[-1], RIGHT[len(request.steps) - 1]
        said = critique_of(last) if last == right else critique_of(last, "reasoning", right)
        return [Continuation(self.text or critique_text(said, CHECK), 7, True, read=PROMPT + 2 * len(request.steps))]

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> tuple[int, int]:
        raise AssertionError


def run(
    method: str, problems: Sequence[Problem] = PROBLEMS, scorer: Truth | None = None, **fields: object
) -> list[SearchResult]:
    """Runs problems concurrently, each with a policy of its own."""
    config = SearchConfig(**{"n": 8, "width": 4, "seed": 3, **fields})  # type: ignore[arg-type]
    critic = Critic(KnowingCritic(), CHECK)

    async def all_of_them() -> list[SearchResult]:
        asked = (solve(method, p, Counting(), scorer or Truth(), config, critic) for p in problems)
        return list(await asyncio.gather(*asked))

    return asyncio.run(all_of_them())


def accuracy(found: Sequence[SearchResult], problems: Sequence[Problem] = PROBLEMS) -> float:
    right = [
        f.chosen is not None and f.chosen.solution.answer == p.answer for f, p in zip(found, problems, strict=True)
    ]
    return sum(right) / len(right)


@pytest.mark.parametrize(
    "method", ["best_of_n", "adaptive_best_of_n", "refined_best_of_n", "cut_and_regenerate", OWN, *STEPWISE]
)
def test_a_scorer_that_knows_leads_to_right_answers(method: str) -> None:
    assert accuracy(run("pass_at_1")) < 0.4
    assert accuracy(run(method)) > 0.7


def test_methods_that_need_no_scorer_ask_none() -> None:
    for method in ("pass_at_1", "self_consistency", "adaptive"):
        scorer = Truth()
        run(method, scorer=scorer)
        assert scorer.asked == []
    with pytest.raises(ValueError, match="needs a reward model; pass a scorer"):
        asyncio.run(solve("best_of_n", PROBLEMS[0], Counting()))
    with pytest.raises(ValueError, match="needs a critic"):
        asyncio.run(solve("refined_best_of_n", PROBLEMS[0], Counting(), Truth()))
    with pytest.raises(ValueError, match="did you mean 'step_beam'"):
        asyncio.run(solve("step_beem", PROBLEMS[0], Counting()))


def test_a_method_can_come_from_a_module_path() -> None:
    for found in run(OWN, n=4):
        first = max(found.pool[:4], key=lambda s: min(score.correct for score in s.scores if score))
        assert [s.solution.steps[0] for s in found.pool[4:]] == [first.solution.steps[0]] * 4
        assert found.method == OWN
    assert OWN not in METHODS
    for name, message in (("vlprm.steps", "has no METHOD"), ("no.such", "unknown method 'no.such': No module named")):
        with pytest.raises(ValueError, match=message):
            run(name)


@pytest.mark.parametrize("method", [*METHODS, OWN])
def test_costs_are_exact_and_runs_are_equal(method: str) -> None:
    once, again = run(method), run(method)
    for found, same in zip(once, again, strict=True):
        assert replace(found, cost=replace(found.cost, seconds=0)) == replace(same, cost=replace(same.cost, seconds=0))
        assert sum(found.shares) == pytest.approx(1)
        cost = found.cost
        counts = [cost.policy_sampled, cost.policy_read, cost.critic_sampled, cost.critic_read, cost.scorer_read]
        assert cost.tokens == sum(counts)
        assert [count > 0 for count in counts[2:4]] == [method == "refined_best_of_n"] * 2
        assert (cost.scorer_read > 0) == (method not in ("pass_at_1", "self_consistency", "adaptive"))
        if method in ("self_consistency", "adaptive", "best_of_n"):
            assert cost.policy_sampled == sum(s.solution.tokens for s in found.pool)
            assert cost.policy_read == PROMPT * cost.policy_calls
        if method in STEPWISE:
            assert cost.policy_read >= PROMPT * cost.policy_calls + 2 + 4 + 6  # each depth reads the prefixes anew
        if method == "best_of_n":
            assert cost.policy_calls == 1
            assert [s.read for s in found.pool] == [
                len(s.solution.steps) + PROMPT * (k == 0) for k, s in enumerate(found.pool)
            ]
            assert cost.scorer_read == sum(s.read for s in found.pool)


def test_the_common_pool_is_common() -> None:
    for found, other in zip(run("self_consistency"), run("refined_best_of_n"), strict=True):
        assert [s.solution for s in other.pool[:4]] == [s.solution for s in found.pool[:4]]


@pytest.mark.parametrize("method", STEPWISE)
def test_n_steps_are_sampled_at_a_depth(method: str) -> None:
    scorer = Truth()
    (found,) = run(method, PROBLEMS[:1], scorer)
    assert scorer.asked[0] == 8
    assert max(scorer.asked) <= 8
    assert len(found.pool) <= 8
    assert all(s.solution.stop == "answer" for s in found.pool)


def test_a_beam_that_narrows_samples_as_many_steps() -> None:
    """Four prefixes at first, then three, two and one; the steps at each depth are as many as without narrowing, and so
    are the tokens that the policy samples."""
    asked: dict[int, list[int]] = {}
    for narrowing in (0, 1):
        scorer = Truth()
        (found,) = run("step_beam", PROBLEMS[:1], scorer, width=2, narrowing=narrowing)
        asked[narrowing] = [*scorer.asked, found.cost.policy_sampled]
        assert len(found.pool) == (1 if narrowing else 4)
        assert {len(s.solution.steps) for s in found.pool} == {4}
    assert asked[0] == asked[1] == [8, 8, 8, 8, 64]
    assert accuracy(run("step_beam", width=2, narrowing=1)) > 0.7


@pytest.mark.parametrize("method", STEPWISE)
def test_a_solution_that_does_not_end_is_no_result(method: str) -> None:
    for found in run(method, max_steps=2):
        assert {s.solution.answer for s in found.pool} == {None}
        assert {s.solution.stop for s in found.pool} == {"max_steps"}


@pytest.mark.parametrize("budget", [100, 200, 400, 800])
@pytest.mark.parametrize("method", [OWN, *(m for m in METHODS if m != "pass_at_1")])
def test_a_budget_is_kept(method: str, budget: int) -> None:
    """It is passed at most by the first candidate or depth, whose cost is unknown, or by the text of one step."""
    problems = PROBLEMS[:8]
    first, spent, free = (run(method, problems, n=16, budget=limit) for limit in (1, budget, 0))
    for least, found in zip(first, spent, strict=True):
        assert found.pool
        assert found.cost.tokens <= max(budget + 28, least.cost.tokens)
    means = [sum(f.cost.tokens for f in of) / len(of) for of in (first, spent, free)]
    assert means[1] > min(0.5 * budget, 0.5 * means[2]) or method in (*STEPWISE, OWN)
    assert means[0] <= means[1] <= max(means[2], budget)


@pytest.mark.parametrize("method", ["best_of_n", "weighted_majority", *STEPWISE])
def test_without_scores_every_candidate_is_as_good(method: str) -> None:
    """A failed score is no result, not a 0 that would favour the others."""
    for found in run(method, scorer=Truth(knows=False)):
        assert found.pool
        assert max(found.shares) > 0


def test_candidates_without_answers_are_not_chosen_and_none_at_all_is_no_error() -> None:
    class Silent(Counting):
        async def sample(self, request: Request) -> list[Continuation]:
            return [Continuation("", 0, False, "timeout")] * request.n

    for method in (*METHODS, OWN):
        critic = Critic(KnowingCritic("nothing to be read"), CHECK)
        found = asyncio.run(solve(method, PROBLEMS[0], Silent(), Truth(), SearchConfig(n=4), critic))
        assert found.chosen is not None
        assert found.chosen.solution.answer is None
        assert found.chosen.solution.stop == "timeout"


@pytest.mark.parametrize(
    ("field", "value", "least"),
    [*((name, 0, 1) for name in ("n", "width", "rounds", "max_steps", "max_tokens")), ("budget", -1, 0),
     ("narrowing", -1, 0), ("temperature", -0.1, 0), ("temperature", float("nan"), 0)],
)  # fmt: skip
def test_no_candidates_is_no_search(field: str, value: float, least: int) -> None:
    """Refused before any method begins, however the config was made."""
    with pytest.raises(ValueError, match=rf"search\.{field} is {value}; give {least} or more"):
        SearchConfig(**{field: value})  # type: ignore[arg-type]


def test_of_nothing_nothing_is_chosen() -> None:
    for choose in (*select.selectors("min").values(), select.likeliest):
        assert choose([]) == []
    assert select.tie_broken([], "min") == select.vote_above([], "min", 0.5) == []
    for method in METHODS.values():
        assert method.choose([], "min") == []
    assert SearchResult("0", "best_of_n", (), [], Cost()).chosen is None


@pytest.mark.parametrize("method", METHODS)
def test_of_equals_the_first_is_chosen_and_each_has_its_share(method: str) -> None:
    """With equal rewards, or none at all, the same candidates share the choice."""

    class Tied(Truth):
        def _scores(self, problem: Problem, steps: Sequence[Step]) -> list[StepScore | None]:
            return [StepScore(0.5, None, None, sd=0.1) if self.knows else None for _ in steps]

    for scorer in (Tied(), Tied(knows=False)):
        for found in run(method, PROBLEMS[:5], scorer):
            tied = [i for i, share in enumerate(found.shares) if share == max(found.shares)]
            assert found.chosen == found.pool[tied[0]]
            if METHODS[method].choose is select.best_of_n:
                assert tied == select.choosable([s.candidate for s in found.pool])
                assert found.shares[tied[0]] == pytest.approx(1 / len(tied))


@pytest.mark.parametrize("method", ["best_of_n", *STEPWISE])
def test_a_solution_may_have_five_hundred_steps(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    long = [*(parse_step(f"[reasoning] {k}") for k in range(1, 500)), parse_step("[answer] 4")]
    monkeypatch.setattr("tests.search.test_methods.RIGHT", long)
    (found,) = run(method, PROBLEMS[:1], n=2, width=2, max_steps=500)
    assert {len(s.solution.steps) for s in found.pool} == {500}
    assert {len(s.scores) for s in found.pool} == {500}
    assert found.chosen is not None
    assert found.chosen.solution.stop == "answer"


def test_one_candidate_is_chosen() -> None:
    for method in METHODS:
        (found,) = run(method, PROBLEMS[:1], n=1, width=1)
        assert len(found.pool) == 1
        assert found.shares == [1.0]


def candidates(*pairs: tuple[str | None, float]) -> list[select.Candidate]:
    return [select.Candidate(answer, (reward,), None) for answer, reward in pairs]


def test_rewards_decide_where_the_vote_does_not() -> None:
    tied = candidates(("a", 0.2), ("b", 0.5), ("a", 0.6), ("b", 0.4), ("c", 0.9), (None, 1.0))
    assert select.agreement(tied) == pytest.approx(2 / 5)  # among candidates with an answer
    assert select.tie_broken(tied, "min") == [0, 0, 1, 0, 0, 0]  # c has the largest reward, but fewer votes
    assert select.vote_above(tied, "min", 0.4) == [0, 0, 0, 0, 1, 0]
    assert select.vote_above(tied, "min", 0.39) == [0.25] * 4 + [0, 0]
    clear = candidates(("a", 0.1), ("a", 0.1), ("b", 0.9))
    assert select.tie_broken(clear, "min") == select.majority(clear) == [0.5, 0.5, 0]
    unread = candidates((None, 0.1), (None, 0.9))
    assert select.agreement(unread) == 0
    assert select.tie_broken(unread, "min") == [0, 1]


def test_places_are_allotted_by_reward() -> None:
    assert allotted([0.9, 0.9, 0.1], 8) == [4, 4, 0]
    assert sum(allotted([0.9, 0.5, 0.4], 7)) == 7
    assert allotted([0.5], 3) == [3]
    assert allotted([float("-inf"), float("-inf")], 4) == [2, 2]


def test_a_vote_is_over_when_it_is_decided() -> None:
    def votes(*answers: str | None) -> list[Solution]:
        return [Solution("p", (), answer, "answer", 1) for answer in answers]

    assert not is_decided(votes("1", "1", "1"))
    assert is_decided(votes("1", "1", "1", "1"))
    assert not is_decided(votes("1", "1", "1", "1", "2"))
    assert not is_decided(votes(None, None, None, None, None))
    sure = asyncio.run(solve("adaptive", PROBLEMS[0], Counting(1.0), config=SearchConfig(n=8)))
    assert [s.solution.answer for s in sure.pool] == ["4"] * 4


def test_more_is_drawn_where_the_best_is_less_sure() -> None:
    """Candidates come in fours until the bounds of the best and of its rivals are apart; new ones continue a rival from
    before its first doubtful step."""
    sure, unsure = (run("adaptive_best_of_n", n=16, scorer=Truth(sd=sd)) for sd in (0.05, 2.0))
    assert [len(f.pool) for f in unsure] == [16] * len(PROBLEMS)
    assert {len(f.pool) for f in sure} <= {4, 8, 12, 16}
    assert sum(f.cost.tokens for f in sure) < 0.8 * sum(f.cost.tokens for f in unsure)
    for found in sure:
        rights = [all(s == r for s, r in zip(c.solution.steps, RIGHT, strict=True)) for c in found.pool]
        assert rights[:4].count(True) != 1 or len(found.pool) == 4
    with pytest.raises(ValueError, match="needs a reward model that gives standard deviations; train one with"):
        run("adaptive_best_of_n", PROBLEMS[:1], Truth(sd=None))


def test_a_rival_is_continued_from_before_its_first_doubtful_step() -> None:
    def kept(*scores: tuple[float, float] | None) -> int:
        of = tuple(score and StepScore(score[0], None, None, sd=score[1]) for score in scores)
        return len(sound_beginning(ScoredSolution(Solution("0", tuple(RIGHT), "4", "answer", 8), of)))

    assert kept((0.9, 0.1), (0.6, 0.1), (0.1, 0.0), (0.1, 0.0)) == 1
    assert kept((0.9, 0.1), (0.9, 0.15), (0.9, 0.1), (0.1, 0.0)) == 1
    assert kept((0.9, 0.1), None, None, None) == 0
    assert kept(None, None, None, None) == 0


def test_a_correction_stands_where_the_wrong_step_stood() -> None:
    solution = Solution("0", (RIGHT[0], parse_step("[reasoning] 7"), *RIGHT[2:]), "4", "answer", 5)
    first = critique_of(RIGHT[0])
    critique = Critique((first, critique_of(solution.steps[1], "reasoning", RIGHT[1])))
    assert corrected(solution, critique) == (*RIGHT[:1], RIGHT[1])
    assert corrected(solution, Critique(tuple(map(critique_of, RIGHT)))) == ()
    assert corrected(solution, None) == ()
    zoom = critique_of(solution.steps[1], "action", parse_step('[zoom] {"bbox_2d": [0, 0, 9, 9]}'))
    assert corrected(solution, Critique((first, zoom))) == tuple(RIGHT[:1])


def test_what_is_not_faulted_is_kept_or_drawn_anew() -> None:
    for found in run("refined_best_of_n"):
        asked = [next((k + 1 for k, s in enumerate(c.solution.steps) if s != RIGHT[k]), len(RIGHT)) for c in found.pool]
        assert found.cost.critic_calls == sum(asked[:4])  # a step each, up to a first wrong one
    kept, drawn = run("refined_best_of_n", unfaulted="keep"), run("refined_best_of_n", unfaulted="resample")
    assert {len(f.pool) for f in drawn} == {8}
    assert min(len(f.pool) for f in kept) < 8


def test_a_solution_is_cut_before_its_first_wrong_step() -> None:
    for found in run("cut_and_regenerate", PROBLEMS[:10], n=8):
        assert len(found.pool) == 8
        for first, second in zip(found.pool[:4], found.pool[4:], strict=True):
            right = next((k for k, step in enumerate(first.solution.steps) if step != RIGHT[k]), None)
            assert second.solution.steps[: right or 0] == first.solution.steps[: right or 0]
            cut = before_wrong(first)
            assert cut == (None if right is None else tuple(RIGHT[:right]))
        assert found.cost.policy_calls == 1 + 4  # four drawn together, then one for each
        regenerated = sum(len(s.solution.steps) for s in found.pool[4:])
        assert found.cost.policy_sampled <= 2 * (4 * len(RIGHT) + regenerated)
        assert found.cost.policy_sampled >= sum(s.solution.tokens for s in found.pool[:4])
    unscored = ScoredSolution(Solution("0", tuple(RIGHT), "4", "answer", 8), (None, StepScore(0.1, None, None)))
    assert before_wrong(unscored) is None
    kept = run("cut_and_regenerate", unfaulted="keep")
    assert min(len(found.pool) for found in kept) < 8
    cheap = run("cut_and_regenerate", PROBLEMS[:5], n=32, budget=300)
    assert all(len(found.pool) < 32 for found in cheap)
    assert any(len(found.pool) > 1 for found in cheap)


@pytest.mark.parametrize(("n", "rounds"), [(9, 2), (8, 2), (3, 5)])
def test_each_round_corrects_what_the_last_one_made(n: int, rounds: int) -> None:
    """No more candidates are criticised than can be corrected."""
    first = math.ceil(n / (rounds + 1))
    for found in run("refined_best_of_n", n=n, rounds=rounds):
        solutions = [s.solution for s in found.pool]
        assert len(solutions) == n
        wrong = [next((k for k, s in enumerate(c.steps) if s != RIGHT[k]), None) for c in solutions]
        for k in range(first, n):  # the last round may have fewer
            fault = wrong[k - first]
            assert fault is None or list(solutions[k].steps[: fault + 1]) == RIGHT[: fault + 1]
        said = [len(RIGHT) if fault is None else fault + 1 for fault in wrong[: n - first]]
        assert found.cost.critic_calls == sum(said)


def test_under_a_budget_a_candidate_is_corrected_before_the_next_is_drawn() -> None:
    assert any(found.cost.critic_calls for found in run("refined_best_of_n", n=32, budget=400))
    assert not any(found.cost.critic_calls for found in run("refined_best_of_n", n=32, budget=1))
    for found in run("refined_best_of_n", n=32, budget=1000):
        drawn, correction = (scored.solution.steps for scored in found.pool[:2])
        wrong = next((k for k, step in enumerate(drawn) if step != RIGHT[k]), None)
        assert wrong is None or list(correction[: wrong + 1]) == RIGHT[: wrong + 1]


@pytest.mark.parametrize(("n", "width"), [(6, 4), (10, 4), (7, 3), (5, 2), (3, 4)])
@pytest.mark.parametrize("method", STEPWISE)
def test_every_depth_samples_n_steps_whatever_the_width(method: str, n: int, width: int) -> None:
    scorer = Truth()
    run(method, PROBLEMS[:1], scorer, n=n, width=width)
    assert scorer.asked[:2] == [n, n]


def test_a_corrected_answer_is_an_answer() -> None:
    """The policy is not asked to continue it."""

    class SlipsAtTheEnd(Counting):
        async def sample(self, request: Request) -> list[Continuation]:
            assert not request.steps
            return [Continuation(SEPARATOR.join([s.text for s in RIGHT[:3]] + ["[answer] 5"]), 8, True)] * request.n

    critic = Critic(KnowingCritic(), CHECK)
    found = asyncio.run(solve("refined_best_of_n", PROBLEMS[0], SlipsAtTheEnd(), Truth(), SearchConfig(n=4), critic))
    assert [s.solution.answer for s in found.pool] == ["5", "5", "4", "4"]
    assert {s.solution.stop for s in found.pool} == {"answer"}
    assert found.chosen is not None
    assert found.chosen.solution == Solution("0", tuple(RIGHT), "4", "answer", 0)
