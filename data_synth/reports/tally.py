"""Statistics of a dataset, row by row: which steps have labels, and how accurate each fusion rule is."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from vlprm.data.dataset import row_paths
from vlprm.data.ground_truth import labels_and_truth
from vlprm.labels.fusion import RULES, judge_rule, rule_calls_wrong, seen_value
from vlprm.labels.judge_reliability import TreeEvidence
from vlprm.labels.sources import Reliability, dependence_text, rate_text
from vlprm.schema import structured
from vlprm.steps import step_kind
from vlprm.tasks import Tasks

DatasetRow = dict[str, Any]
BINS = 10


class StepTally:
    """Counts of steps by source, kind, position, target and error kind; the agreement of counts and the first
    source; the reliability of the sources; and how many steps selected for training have a verdict and a target."""

    def __init__(self) -> None:
        self._by: dict[str, dict[Any, Counter[str]]] = {"by_source": {}, "by_kind": {}, "by_position": {}}
        self._targets: Counter[str] = Counter(correct=0, wrong=0, none=0)
        self._soft = 0
        self._kinds: Counter[str] = Counter()
        self._agreement: Counter[str] = Counter()
        self._learnt: Counter[str] = Counter(solutions=0, steps=0, with_verdict=0, labelled=0)
        self._spoke: Counter[str] = Counter()
        self._steps = 0
        self._quality = Reliability()

    def add(self, row: DatasetRow, evidence: TreeEvidence) -> None:
        """Count the steps of a row."""
        meta = json.loads(row["meta"])
        if "reliability" in meta:
            self._quality = _reliability(row["id"], meta)
        depths: list[int] = []
        source = f"{meta['task']}/{meta['question_type']}" if "question_type" in meta else meta["task"]
        for node, (text, parent, target) in enumerate(
            zip(row["completions"], row["parents"], row["labels"], strict=True)
        ):
            depths.append(1 if parent < 0 else depths[parent] + 1)
            wrong = target is not None and rule_calls_wrong(meta["rule"], target)
            place = {"by_source": source, "by_kind": step_kind(text), "by_position": depths[node]}
            for name, key in place.items():
                counts = self._by[name].setdefault(key, Counter(steps=0, labelled=0, wrong=0))
                counts.update(steps=1, labelled=target is not None, wrong=wrong)
            self._targets["none" if target is None else "wrong" if wrong else "correct"] += 1
            self._soft += target not in (None, 0.0, 1.0)
            if wrong:
                self._kinds[row["error_kinds"][node] or "not named"] += 1
        self._add_learnt(row, evidence)
        for label in evidence.labels:
            verdict = judge_rule(label)
            if verdict is not None and (value := seen_value(label)) is not None:
                counts_say = "correct" if value else "wrong"
                self._agreement[f"counts {counts_say}, judge {'correct' if verdict else 'wrong'}"] += 1
            self._spoke.update(label.votes.keys())
        self._steps += len(evidence.labels)

    def _add_learnt(self, row: DatasetRow, evidence: TreeEvidence) -> None:
        paths = [path for path in row_paths(row) if path.place is not None]
        nodes = {node for path in paths for node in path.nodes}
        self._learnt.update(
            solutions=len(paths),
            steps=len(nodes),
            with_verdict=sum(bool(evidence.labels[n].votes) for n in nodes),
            labelled=sum(row["labels"][n] is not None for n in nodes),
        )

    def result(self) -> dict[str, Any]:
        """The counts as JSON values."""
        agreed = self._agreement["counts correct, judge correct"] + self._agreement["counts wrong, judge wrong"]
        return {
            **{name: {key: dict(groups[key]) for key in sorted(groups)} for name, groups in self._by.items()},
            "targets": dict(self._targets),
            "soft_targets": self._soft,
            "labelled": self._targets["correct"] + self._targets["wrong"],
            "learnt_from": dict(self._learnt),
            "error_kinds": dict(self._kinds.most_common()),
            "agreement": {**self._agreement, "share": agreed / total if (total := self._agreement.total()) else None},
        }

    def sources(self) -> dict[str, dict[str, Any]]:
        """Per source of votes: what it is, the share of steps that it spoke about, its rates and its dependence on the
        other sources in words, and the numbers behind them."""
        return {
            name: {
                "kind": source.kind,
                "coverage": self._spoke[name] / max(1, self._steps),
                "rates": {rate: rate_text(source, rate) for rate in source.rates},
                "dependence": {other: dependence_text(source, other) for other in source.dependence_intervals},
                **{part: getattr(source, part) for part in ("intervals", "anchors", "declared")},
                "values": source.rates,
                "correlations": source.dependence,
            }
            for name, source in self._quality.sources.items()
        }


def _reliability(row_id: str, meta: dict[str, Any]) -> Reliability:
    return structured(Reliability, meta["reliability"], f"the sources' reliability in row {row_id}")


class RuleTally:
    """Each rule's targets against the ground truth, over steps with enough rollouts and, if judged, a verdict. Skips
    rows of other tasks."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self._steps = 0
        self._calls: dict[str, Counter[str]] = {rule: Counter() for rule in RULES}
        self._bins: dict[str, list[list[float]]] = {rule: [[0, 0.0, 0.0] for _ in range(BINS)] for rule in RULES}
        self._squares: Counter[str] = Counter()

    def add(self, row: DatasetRow, evidence: TreeEvidence) -> None:
        """Compare all rules with the ground truth on the steps of a row."""
        meta = json.loads(row["meta"])
        if meta["task"] not in self.tasks or "scene" not in meta or "reliability" not in meta:
            return
        known = labels_and_truth(row_paths(row), self.tasks)
        judged = any(label.votes for label, _ in known.values())
        truth = {
            node: verdict.correct
            for node, (label, verdict) in known.items()
            if seen_value(label) is not None and (label.votes or not judged)
        }
        quality = _reliability(row["id"], meta)
        self._steps += len(truth)
        for rule, targets_of in RULES.items():
            targets = targets_of(evidence, quality)
            for node, correct in truth.items():
                self._add(rule, targets[node], correct)

    def _add(self, rule: str, target: float | None, correct: bool) -> None:
        called = target is not None and rule_calls_wrong(rule, target)
        self._calls[rule].update(
            hits=called and not correct, called=called, wrong=not correct, labelled=target is not None
        )
        if target is not None:
            bin_ = self._bins[rule][min(BINS - 1, int(target * BINS))]
            bin_[0], bin_[1], bin_[2] = bin_[0] + 1, bin_[1] + target, bin_[2] + correct
            self._squares[rule] += (target - correct) ** 2  # type: ignore[assignment]

    def result(self) -> dict[str, Any] | None:
        """Metrics per rule; None without ground truth. `bins` has, per tenth of the target, the number of steps, their
        mean target, and the share that is correct."""
        if not self._steps:
            return None
        return {"steps": self._steps, "rules": {rule: self._measured(rule) for rule in RULES}}

    def _measured(self, rule: str) -> dict[str, Any]:
        calls, labelled = self._calls[rule], max(1, self._calls[rule]["labelled"])
        precision = calls["hits"] / max(1, calls["called"])
        recall = calls["hits"] / max(1, calls["wrong"])
        return {
            "precision": precision,
            "recall": recall,
            "f1": 2 * calls["hits"] / max(1, calls["called"] + calls["wrong"]),
            "labelled": calls["labelled"] / self._steps,
            "ece": sum(abs(told - right) for _, told, right in self._bins[rule]) / labelled,
            "brier": self._squares[rule] / labelled,
            "bins": [[n, told / n, right / n] for n, told, right in self._bins[rule] if n],
        }
