"""Whether injected steps can be told from natural first errors by their words alone.

If they can, a reward model may learn the maker's style in place of the error. A classifier of words and pairs of words
(naive Bayes, five folds by problem) tries: an AUROC of 0.5 means that it cannot.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from data_synth.reports.tally import DatasetRow
from vlprm.labels.fusion import INJECTED, rule_calls_wrong
from vlprm.labels.judge_reliability import TreeEvidence
from vlprm.metrics import auroc
from vlprm.prompts import ERRORS
from vlprm.steps import step_kind

FOLDS, LEAST = 5, 20  # steps of each sort, without which nothing is said
_WORD = re.compile(r"\w+|[^\w\s]")


class ArtifactTally:
    """The words of injected steps and of natural first errors, by problem."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, bool, Counter[str]]] = []  # fold, whether it was injected, its words

    def add(self, number: int, row: DatasetRow, evidence: TreeEvidence) -> None:
        """Collect the injected steps of a row, and its natural steps of the same kinds that are the first called wrong
        on their path."""
        rule = json.loads(row["meta"])["rule"]
        spoilt: list[bool] = []
        steps = zip(row["completions"], row["parents"], row["labels"], evidence.labels, strict=True)
        for text, parent, target, label in steps:
            before = parent >= 0 and spoilt[parent]
            wrong = target is not None and rule_calls_wrong(rule, target)
            spoilt.append(before or wrong)
            injected = INJECTED in label.votes
            if injected or (wrong and not before and step_kind(text) in ERRORS):
                self._steps.append((number % FOLDS, injected, _features(text)))

    def result(self) -> dict[str, Any] | None:
        """The number of steps of each sort and the AUROC (None: too few); None without injected steps."""
        injected = sum(was for _, was, _ in self._steps)
        if not injected:
            return None
        natural = len(self._steps) - injected
        return {
            "injected": injected,
            "natural": natural,
            "auroc": self._auroc() if min(injected, natural) >= LEAST else None,
        }

    def _auroc(self) -> float | None:
        scores: list[float] = []
        sorts: list[bool] = []
        for fold in range(FOLDS):
            known = [(was, words) for of, was, words in self._steps if of != fold]
            weights = _log_odds(known)
            for of, was, words in self._steps:
                if of == fold:
                    scores.append(sum(weights.get(word, 0.0) for word in words))
                    sorts.append(was)
        return auroc(scores, sorts)


def _features(text: str) -> Counter[str]:
    words = _WORD.findall(text.lower())
    return Counter([*words, *(f"{a} {b}" for a, b in pairwise(words))])


def _log_odds(known: Sequence[tuple[bool, Counter[str]]]) -> dict[str, float]:
    """The log odds of each word in injected steps against natural ones, with one pseudo-step of each."""
    counts = {True: Counter[str](), False: Counter[str]()}
    steps: Counter[bool] = Counter()
    for was, words in known:
        counts[was].update(words.keys())
        steps[was] += 1
    shares = {
        was: {word: (counts[was][word] + 1) / (steps[was] + 2) for word in counts[True] | counts[False]}
        for was in (True, False)
    }
    return {word: math.log(share / shares[False][word]) for word, share in shares[True].items()}
