"""The estimator of policy learning: identities, values by hand, and each published method's own formula."""

from __future__ import annotations

import itertools
import math
import random
from statistics import fmean, stdev

import pytest

from train.policy.advantages import (
    EPSILON,
    Advantages,
    Estimator,
    Group,
    advantages,
    modulated,
    prm_values,
    returns,
    weighted_sum,
)
from train.policy.shaping import on_last, paid
from vlprm.scoring.gate import gated, largest_drop

# Four paths of 3, 3, 2 and 1 steps: the first two share two steps, the third one, the last none.
TREE = Group(((0, 1, 2), (0, 1, 3), (0, 4), (5,)), (1.0, 0.0, 1.0, 0.0))
STAR = Group(((0, 1, 2), (3, 4), (5,)), (1.0, 0.0, 1.0))
SCORES = [[0.9, 0.8, 0.7], [0.9, 0.8, 0.2], [0.9, 0.4], [0.3]]
R = [1.0, 0.0, 1.0, 0.0]


def outcome(group: Group) -> list[list[float | None] | None]:
    return [on_last(r, len(nodes)) for r, nodes in zip(group.outcomes, group.states, strict=True)]


def every(group: Group, per_path: list[float]) -> list[list[float]]:
    return [[a] * len(nodes) for a, nodes in zip(per_path, group.states, strict=True)]


def same(found: Advantages, expected: object) -> None:
    assert found == [pytest.approx(path, abs=1e-12) for path in expected]  # type: ignore[attr-defined]


# --- identities


def test_lambda_1_gives_the_return_less_the_value() -> None:
    values = [[0.5, 0.25, 0.125], [0.5, 0.25, 0.125], [0.5, 0.25], [0.5]]
    found = advantages(Estimator("counts", 1.0), outcome(TREE), TREE, values)
    same(found, [[r - v for v in path] for r, path in zip(R, values, strict=True)])


def test_lambda_0_sums_to_the_return_less_the_first_value() -> None:
    found = advantages(Estimator("leaves", 0.0), outcome(TREE), TREE)
    assert [sum(path) for path in found] == pytest.approx([r - fmean(R) for r in R])  # type: ignore[arg-type]


def test_siblings_are_compared_by_the_progress_of_the_tree() -> None:
    """The visit-weighted mean of siblings' values is their parent's value, so progress is a sibling's advantage."""
    found = advantages(Estimator("leaves", 0.0), outcome(TREE), TREE)
    value = {-1: 0.5, 0: 2 / 3, 1: 0.5}
    same(
        found,
        [
            [value[0] - 0.5, value[1] - value[0], 1 - value[1]],
            [value[0] - 0.5, value[1] - value[0], 0 - value[1]],
            [value[0] - 0.5, 1 - value[0]],
            [0 - 0.5],
        ],
    )
    assert 3 * found[0][0] + 1 * found[3][0] == pytest.approx(0)  # type: ignore[operator]


def test_a_value_of_leaves_is_the_mean_return_to_go() -> None:
    """So the advantages of the paths through a state sum to 0 there, also with rewards on every step."""
    found = advantages(Estimator("leaves", 1.0), SCORES, TREE)
    after_first = [path[1] for nodes, path in zip(TREE.states, found, strict=True) if nodes[0] == 0]
    assert math.fsum(after_first) == pytest.approx(0)  # type: ignore[arg-type]
    assert after_first[0] == pytest.approx(0.8 + 0.7 - fmean([0.8 + 0.7, 0.8 + 0.2, 0.4]))


def test_paths_that_share_no_step() -> None:
    """With lambda 1, tree values are GRPO's; with lambda 0, the first step takes all credit."""
    grpo = advantages(Estimator("group", 1.0), outcome(STAR), STAR)
    tree = advantages(Estimator("leaves", 1.0), outcome(STAR), STAR)
    assert [path[0] for path in tree] == pytest.approx([path[0] for path in grpo])
    first = advantages(Estimator("leaves", 0.0), outcome(STAR), STAR)
    same(first, [[1 / 3, 0, 0], [-2 / 3, 0], [1 / 3]])


def test_potentials_do_not_change_the_expected_gradient() -> None:
    """Adding phi(s') - phi(s) to the rewards of a two-step softmax policy, enumerated, with the group's baseline."""
    logits = {"": [0.3, -0.2], "0": [0.1, 0.7], "1": [-0.5, 0.4]}
    won = {"00": 1.0, "01": 0.0, "10": 0.0, "11": 1.0}
    potential = {"0": 0.8, "1": -0.4}  # 0 at the prompt and at the end

    def gradient(shaped: bool) -> dict[tuple[str, int], float]:
        p = {s: [math.exp(x) / sum(map(math.exp, row)) for x in row] for s, row in logits.items()}
        total = {(s, a): 0.0 for s in logits for a in (0, 1)}
        paths = ["".join(choice) for choice in itertools.product("01", repeat=2)]
        for pair in itertools.product(paths, repeat=2):
            chance = math.prod(p[""][int(x[0])] * p[x[0]][int(x[1])] for x in pair)
            rewards = [[potential[x[0]] * shaped, won[x] - potential[x[0]] * shaped] for x in pair]
            states = tuple((int(x[0]), 2 + int(x, 2)) for x in pair)
            group = Group(states, tuple(won[x] for x in pair))
            found = advantages(Estimator("group"), rewards, group)
            for x, of_path in zip(pair, found, strict=True):
                for state, action, a in (("", int(x[0]), of_path[0]), (x[0], int(x[1]), of_path[1])):
                    for b in (0, 1):
                        assert a is not None
                        total[state, b] += chance * a * ((b == action) - p[state][b])
        return total

    plain, shaped = gradient(False), gradient(True)
    assert {key: pytest.approx(value, abs=1e-6) for key, value in plain.items()} == shaped


# --- groups and missing results


def test_level_groups_give_no_advantage() -> None:
    for level in (0.0, 1.0):
        group = Group(TREE.states, (level,) * 4)
        for how in ("none", "group_std", "leave_one_out"):
            same(advantages(Estimator("group", 1.0, how), outcome(group), group), every(group, [0.0] * 4))  # type: ignore[arg-type]
        same(advantages(Estimator("leaves", 0.0), outcome(group), group), every(group, [0.0] * 4))


def test_a_group_of_one() -> None:
    group = Group(((0, 1),), (1.0,))
    assert advantages(Estimator("group"), outcome(group), group) == [[0.0, 0.0]]
    assert advantages(Estimator("group", 1.0, "group_std"), outcome(group), group) == [[0.0, 0.0]]
    assert advantages(Estimator("group", 1.0, "leave_one_out"), outcome(group), group) == [[None, None]]


def test_no_result_leaves_the_means() -> None:
    group = Group(TREE.states, (1.0, None, 1.0, 0.0))
    for estimator in (Estimator("group"), Estimator("group", 1.0, "group_std"), Estimator("leaves", 0.0)):
        found = advantages(estimator, outcome(group), group)
        assert found[1] == [None] * 3
        kept = Group(tuple(TREE.states[i] for i in (0, 2, 3)), (1.0, 1.0, 0.0))
        same([found[0], found[2], found[3]], advantages(estimator, outcome(kept), kept))


def test_an_advantage_that_needs_an_unknown_reward_is_none() -> None:
    group, rewards = Group(((0, 1, 2),), (None,)), [[0.5, None, 0.25]]
    assert advantages(Estimator("none", 0.0), rewards, group) == [[0.5, None, 0.25]]
    assert advantages(Estimator("none", 1.0), rewards, group) == [[None, None, 0.25]]
    assert returns(rewards) == [None]
    assert prm_values([[None, 0.5], [0.25, 0.75], None]) == [[0.25, None], [0.25, 0.25], None]


def test_terms_without_a_result_leave_the_sum() -> None:
    one: Advantages = [[1.0, None], [None]]
    two: Advantages = [[0.5, 0.25], [None]]
    assert weighted_sum([(1.0, one), (2.0, two)]) == [[2.0, 0.5], [None]]


def test_leave_one_out_by_hand() -> None:
    found = advantages(Estimator("group", 1.0, "leave_one_out"), outcome(TREE), TREE)
    same(found, every(TREE, [1 - 1 / 3, 0 - 2 / 3, 1 - 1 / 3, 0 - 2 / 3]))


# --- the methods: settings on one side, the method's own formula on the other


def test_grpo_dr_grpo_and_rloo() -> None:
    grpo = advantages(Estimator("group", 1.0, "group_std"), outcome(TREE), TREE)
    same(grpo, every(TREE, [(r - fmean(R)) / (stdev(R) + EPSILON) for r in R]))
    same(advantages(Estimator("group"), outcome(TREE), TREE), every(TREE, [r - fmean(R) for r in R]))
    rloo = advantages(Estimator("group", 1.0, "leave_one_out"), outcome(TREE), TREE)
    same(rloo, every(TREE, [4 / 3 * (r - fmean(R)) for r in R]))


def test_process_grpo_of_deepseekmath() -> None:
    found = advantages(Estimator("none", 1.0, "reward_std"), paid("step", SCORES, R), TREE)
    flat = [r for path in SCORES for r in path]
    normal = [[(r - fmean(flat)) / (stdev(flat) + EPSILON) for r in path] for path in SCORES]
    same(found, [[sum(path[k:]) for k in range(len(path))] for path in normal])


def test_step_grpo() -> None:
    found = advantages(Estimator("none", 0.0, "step_std"), paid("step", SCORES, R), TREE)
    flat = [r for path in SCORES for r in path]
    same(found, [[(r - fmean(flat)) / (stdev(flat) + EPSILON) for r in path] for path in SCORES])


def test_vine_ppo() -> None:
    values = [[0.5, 0.6, 0.7], [0.5, 0.6, 0.7], [0.5, 0.6], [0.5]]
    found = advantages(Estimator("counts", 0.0), outcome(TREE), TREE, values)
    ends = [[*path[1:], r] for path, r in zip(values, R, strict=True)]
    same(found, [[then - now for now, then in zip(v, e, strict=True)] for v, e in zip(values, ends, strict=True)])


def test_tree_rl() -> None:
    """Averaged over the paths through a node: (V(n) - V(root) + V(n) - V(parent)) / sqrt(leaves under n)."""
    local = advantages(Estimator("leaves", 0.0, "sqrt_leaves"), outcome(TREE), TREE)
    whole = advantages(Estimator("group", 1.0, "sqrt_leaves"), outcome(TREE), TREE)
    found = weighted_sum([(1.0, local), (1.0, whole)])
    value, leaves = {0: 2 / 3, 1: 0.5, 2: 1.0, 3: 0.0, 4: 1.0, 5: 0.0}, {0: 3, 1: 2, 2: 1, 3: 1, 4: 1, 5: 1}
    parent = {0: 0.5, 1: value[0], 2: value[1], 3: value[1], 4: value[0], 5: 0.5}
    for node in value:
        through = [
            a
            for nodes, path in zip(TREE.states, found, strict=True)
            for n, a in zip(nodes, path, strict=True)
            if n == node
        ]
        expected = (value[node] - 0.5 + value[node] - parent[node]) / math.sqrt(leaves[node])
        assert fmean(through) == pytest.approx(expected)  # type: ignore[type-var]


def test_pav_and_oprl() -> None:
    grpo = advantages(Estimator("group", 1.0, "group_std"), outcome(TREE), TREE)
    progress = advantages(Estimator("none", 0.0), paid("progress", SCORES, R), TREE)
    first = fmean(path[0] for path in SCORES)
    steps = [[b - a for a, b in zip([first, *path[:-1]], path, strict=True)] for path in SCORES]
    same(progress, steps)
    same(
        weighted_sum([(1.0, grpo), (3.0, progress)]),
        [[g[0] + 3 * s for s in path] for g, path in zip(grpo, steps, strict=True)],  # type: ignore[operator]
    )


def test_ppr() -> None:
    """r = p + R - 1, and the group's mean return in place of a critic."""
    found = advantages(Estimator("group", 1.0), paid("signed", SCORES, R), TREE)
    signed = [[p + r - 1 for p in path] for path, r in zip(SCORES, R, strict=True)]
    assert max(signed[1]) <= 0 < signed[0][0]
    mean = fmean(map(sum, signed))
    same(found, [[sum(path[k:]) - mean for k in range(len(path))] for path in signed])


def test_pure() -> None:
    """softmax(-r / T) r, less the mean step reward of the other paths, summed from the step on."""
    found = advantages(Estimator("none", 1.0, "leave_one_out"), paid("softmin", SCORES, R), TREE)
    weighted = []
    for path in SCORES:
        weights = [math.exp(-r / 0.1) for r in path]
        weighted.append([w / sum(weights) * r for w, r in zip(weights, path, strict=True)])
    assert [sum(path) for path in weighted] == pytest.approx([min(path) for path in SCORES], abs=0.1)
    means = [fmean(path) for path in weighted]
    less = [[r - (sum(means) - means[i]) / 3 for r in path] for i, path in enumerate(weighted)]
    same(found, [[sum(path[k:]) for k in range(len(path))] for path in less])


def test_ps_grpo() -> None:
    paths = [[0.9, 0.8, 0.7], [0.9, 0.8, 0.2], [0.9, 0.4], [0.3]]
    falls = [max((a - b) / a for a, b in itertools.pairwise(path)) if len(path) > 1 else 0 for path in paths]
    assert [largest_drop(path) for path in paths] == pytest.approx(falls)
    rewards = [gated(r, path, drop=0.3, keep=0.5) for r, path in zip(R, paths, strict=True)]
    assert rewards == [1.0, 0.0, 0.5, 0.0]
    assert [gated(1.0, None, 0.3, 0.5), gated(None, paths[0], 0.3, 0.5)] == [1.0, None]


def test_perceval() -> None:
    grpo = advantages(Estimator("group"), outcome(TREE), TREE)
    found = modulated(grpo, SCORES, alpha=0.1, below=0.5)
    flagged = [[score < 0.5 for score in path] for path in SCORES]
    same(
        found,
        [
            [a - 0.1 * abs(a) if m else a for a, m in zip(*pair, strict=True)]
            for pair in zip(grpo, flagged, strict=True)
        ],
    )  # type: ignore[arg-type, operator]


def test_veri_gate_falls_back_on_level_groups() -> None:
    estimator = Estimator("none", 1.0, "step_std", only="level")
    assert advantages(estimator, SCORES, TREE) == every(TREE, [None] * 4)  # type: ignore[list-item]
    level = Group(TREE.states, (0.0,) * 4)
    to_go = [[sum(path[k:]) for k in range(len(path))] for path in SCORES]
    flat = [x for path in to_go for x in path]
    same(
        advantages(estimator, SCORES, level),
        [[(x - fmean(flat)) / (stdev(flat) + EPSILON) for x in path] for path in to_go],
    )


def test_papo_rubric_compares_right_paths_only() -> None:
    found = advantages(Estimator("group", 1.0, "group_std", only="right"), paid("mean", SCORES, R), TREE)
    means = [fmean(SCORES[0]), fmean(SCORES[2])]
    expected = [(m - fmean(means)) / (stdev(means) + EPSILON) for m in means]
    same(found, every(TREE, [expected[0], None, expected[1], None]))  # type: ignore[list-item]


def test_ranks_ignore_the_scale() -> None:
    ranked = paid("ranks", SCORES, R)
    assert ranked == [[0, 0, 1], [0, 0, pytest.approx(1 / 3)], [0, pytest.approx(2 / 3)], [0]]
    scaled = [[0.1 + score / 10 for score in path] for path in SCORES]
    assert paid("ranks", scaled, R) == ranked
    assert paid("ranks", [[0.5], [0.5], None], R[:3]) == [[0.5], [0.5], None]


def test_a_step_reward_finds_what_the_outcome_finds_slowly() -> None:
    """A bandit of six steps that succeeds only if all are right: credit by step reaches it in fewer rounds."""

    def rounds_to_learn(credit: str) -> int:
        rng, logits = random.Random(0), [0.0] * 6
        for round_number in range(1, 400):
            p = [1 / (1 + math.exp(-x)) for x in logits]
            if math.prod(p) > 0.5:
                return round_number
            taken = [[rng.random() < chance for chance in p] for _ in range(8)]
            states = tuple(tuple(hash(tuple(path[: k + 1])) for k in range(6)) for path in taken)
            group = Group(states, tuple(float(all(path)) for path in taken))
            if credit == "truth":
                found = advantages(
                    Estimator("none", 0.0), [[2.0 * right - 1 for right in path] for path in taken], group
                )
            else:
                found = advantages(Estimator("group"), outcome(group), group)
            for path, of_path in zip(taken, found, strict=True):
                for k, a in enumerate(of_path):
                    logits[k] += 0.1 * (a or 0.0) * (path[k] - p[k])
        return 400

    assert rounds_to_learn("truth") < 0.5 * rounds_to_learn("outcome")
