"""The ways to choose among a pool's candidates that are compared with the vote, and what each costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from eval.runs.pools import Pool, worth
from eval.runs.results import Key, Run, model_names
from vlprm.errors import UserError
from vlprm.schema import Aggregation
from vlprm.search import select
from vlprm.search.select import Candidate, Shares
from vlprm.search.tokens import Parameters, Spend, Unit, spend_of_first

VOTE, RANDOM, ORACLE = "vote", "random candidate", "oracle"
UNREADABLE = "\0"  # stands for an answer that cannot be read, where it counts as one
Reads = Callable[[Sequence[Candidate]], bool]


@dataclass(frozen=True)
class Chooser:
    """A way to choose among the candidates of a run's pools. `reads`: whether the run's reward model reads a problem's
    candidates. `parameters`: those of the run's models, if they are known."""

    title: str
    choose: Callable[[Sequence[Candidate]], Shares]
    reads: Reads
    parameters: Parameters | None
    pools: Mapping[Key, Pool]

    def value(self, key: Key, n: int) -> float:
        """How often the choice among the first `n` candidates is right."""
        pool = self.pools[key]
        return worth(self.choose(pool.candidates[:n]), pool.values[:n])

    def spends(self, key: Key, size: int) -> list[Spend]:
        """What choosing among the first 1, 2, ... `size` candidates costs."""
        pool = self.pools[key]
        alone = [(sampled, read, 0) for sampled, read, _ in pool.spent[:size]]
        unread = spend_of_first(alone, pool.prompt, self.parameters)
        read = spend_of_first(pool.spent[:size], pool.prompt, self.parameters)
        return [read[k] if self.reads(pool.candidates[: k + 1]) else unread[k] for k in range(size)]

    def affords(self, key: Key, spent: Spend, unit: Unit) -> int:
        """The largest number of the pool's candidates whose choice costs at most what was spent, at least one."""
        costs = self.spends(key, len(self.pools[key].candidates))
        return max((k for k, cost in enumerate(costs, 1) if cost.of(unit) <= spent.of(unit)), default=1)


def choosers_of(runs: Sequence[Run], threshold: float) -> list[Chooser]:
    """The rows of the tables: those without a reward model first, then those of each run's. UserError for runs without
    a reward model, or two with the same name."""
    names = [model_names(one.settings).get("reward_model", "") for one in runs]
    if not all(names):
        raise UserError(f"the run {runs[names.index('')].label} has no reward model; set reward_model in eval.run")
    if len(set(names)) < len(names):
        raise UserError(f"two reward models are named {max(names, key=names.count)}; rename the folder of one")
    first = runs[0]
    plain: dict[str, Callable[[Sequence[Candidate]], Shares]] = {
        RANDOM: select.sample,
        VOTE: select.majority,
        f"{VOTE}, unreadable answers count": lambda pool: select.majority(_counted(pool)),
    }
    rows = [Chooser(title, choose, _never, first.parameters, first.pools) for title, choose in plain.items()]
    for one, name in zip(runs, names, strict=True):
        rows += _of_run(one, name, threshold)
    return rows


def _of_run(one: Run, name: str, threshold: float) -> list[Chooser]:
    rule: Aggregation = one.aggregation

    def above(share: float) -> Callable[[Sequence[Candidate]], Shares]:
        return lambda pool: select.vote_above(pool, rule, share)

    ways: dict[str, tuple[Callable[[Sequence[Candidate]], Shares], Reads]] = {
        f"{VOTE}, ties by {name}": (lambda pool: select.tie_broken(pool, rule), _is_tied),
        f"{VOTE}, by {name} unless more than {threshold:g} agree": (above(threshold), _at_most(threshold)),
        f"{VOTE}, by {name} where any disagree": (lambda pool: select.best_of_n(pool, rule), _disagree),
        f"{VOTE} weighted by {name}": (lambda pool: select.weighted_majority(pool, rule), _always),
        f"best of N by {name}": (lambda pool: select.best_of_n(pool, rule), _always),
        f"best of N by {name}, unreadable answers count": (
            lambda pool: select.best_of_n(_counted(pool), rule),
            _always,
        ),
    }
    if any(candidate.surprise is not None for pool in one.pools.values() for candidate in pool.candidates):
        ways[f"best of N by likelihood under the backbone of {name}"] = (select.likeliest, _always)
    return [Chooser(title, choose, reads, one.parameters, one.pools) for title, (choose, reads) in ways.items()]


def _counted(pool: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with an answer that cannot be read as an answer of its own, which is never right."""
    return [replace(c, answer=UNREADABLE) if c.answer is None else c for c in pool]


def _never(pool: Sequence[Candidate]) -> bool:
    return False


def _always(pool: Sequence[Candidate]) -> bool:
    return True


def _disagree(pool: Sequence[Candidate]) -> bool:
    return select.agreement(pool) < 1


def _at_most(share: float) -> Reads:
    return lambda pool: select.agreement(pool) <= share


def _is_tied(pool: Sequence[Candidate]) -> bool:
    """Whether several answers have the most votes."""
    shares = select.majority(pool)
    return len({c.answer for c, share in zip(pool, shares, strict=True) if share}) > 1
