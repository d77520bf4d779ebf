"""What a solution is worth, and which solutions are selected."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_synth.selected.candidates import Candidate
from data_synth.selected.config import By
from vlprm.scoring.aggregate import aggregated

Worth = Callable[[Candidate, float], float | None]


def _outcome(one: Candidate, alpha: float) -> float | None:
    return None if one.right is None else float(one.right)


def _mixed(one: Candidate, alpha: float) -> float | None:
    """The mean step reward plus `alpha` for a right answer (ReasonFlux-PRM, arXiv 2506.18896, section 4, with the
    answer in place of its trajectory reward)."""
    mean = aggregated(one.rewards, "mean")
    return None if mean is None or one.right is None else mean + alpha * one.right


def _balanced(one: Candidate, alpha: float) -> float | None:
    """BIS (arXiv 2602.04145): (p (1 - p) + alpha) R, for the share p of steps that are called correct, and their mean
    reward R, which is 0 without any. Steps without a reward do not count."""
    known = [reward for reward in one.rewards if reward is not None]
    if not known:
        return None
    correct = [reward for reward, is_correct in zip(known, one.correct, strict=True) if is_correct]
    share = len(correct) / len(known)
    return (share * (1 - share) + alpha) * (sum(correct) / len(correct) if correct else 0.0)


WORTH: dict[By, Worth] = {
    "prm_min": lambda one, alpha: aggregated(one.rewards, "min"),
    "prm_mean": lambda one, alpha: aggregated(one.rewards, "mean"),
    "likeliest": lambda one, alpha: None if one.surprise is None else -one.surprise,
    "outcome": _outcome,
    "random": lambda one, alpha: 0.0,
    "mixed": _mixed,
    "balanced": _balanced,
}


@dataclass(frozen=True)
class Selection:
    """The selected solutions, best first, each with its value; how many are left out, by the reason."""

    candidates: list[Candidate]
    values: list[float]
    left_out: Counter[str]


def selection(
    candidates: Sequence[Candidate], by: By, alpha: float, keep: float, per_problem: int, unlike: float, seed: str
) -> Selection:
    """The best solutions. A solution without an answer is left out, whatever its rewards. A solution is passed over if
    a better one of its problem has all of its steps, or all but a share below `unlike`, or if `per_problem` better ones
    of its problem remain. Of what remains, the share `keep` is selected. Solutions of equal value are in random
    order."""
    rng = random.Random(seed)
    answered = [one for one in candidates if one.answered]
    worth = [(one, WORTH[by](one, alpha), rng.random()) for one in answered]
    known = [(value, tie, one) for one, value, tie in worth if value is not None]
    left_out = Counter(
        {"without an answer": len(candidates) - len(answered), "without a value": len(answered) - len(known)}
    )
    remain: list[tuple[float, Candidate]] = []
    of_problem: dict[str, list[frozenset[str]]] = defaultdict(list)
    for value, _, one in sorted(known, key=lambda ranked: ranked[:2], reverse=True):
        better, texts = of_problem[one.problem_id], frozenset(one.texts)
        if any(_is_like(texts, other, unlike) for other in better):
            left_out["like a better one"] += 1
        elif len(better) == per_problem:
            left_out["more than per_problem"] += 1
        else:
            better.append(texts)
            remain.append((value, one))
    chosen = remain[: round(keep * len(remain))]
    left_out["ranked lower"] = len(remain) - len(chosen)
    return Selection([one for _, one in chosen], [value for value, _ in chosen], left_out)


def _is_like(texts: frozenset[str], other: frozenset[str], unlike: float) -> bool:
    new = len(texts - other) / len(texts) if texts else 0.0
    return new == 0 or new < unlike
