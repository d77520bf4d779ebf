"""A search method outside the package, as a user adds one: best of n, then n more continued from its first step.

    python -m eval.solve --image '[grid.png]' --question "How many red cells are there?" --reward_model runs/demo/prm \\
      --method docs.examples.twice_the_best
"""

from __future__ import annotations

from vlprm.search import Attempt, Method, ScoredSolution
from vlprm.search.sampled import drawn


async def twice_the_best(attempt: Attempt) -> list[ScoredSolution]:
    pool = await attempt.scored(await drawn(attempt, attempt.config.n))
    if not attempt.affords(attempt.config.n):  # the budget does not pay for n more
        return pool
    first = max(pool, key=attempt.value).solution.steps[:1]
    return pool + await attempt.scored(await attempt.continued([first] * attempt.config.n))


METHOD = Method(twice_the_best)  # chosen by reward, as best_of_n does
