"""What the index of a run's judgements says about each record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlprm.runs.index import FAILED, UNANSWERED, Note, Summary

VERDICT_COUNT = "verdicts"  # number of verdicts in a note


def _note(record: Mapping[str, Any]) -> Note:
    verdicts = sum(verdict is not None for verdict in record["verdicts"])
    note = {
        "judge": record["judge"],
        "rates": record.get("rates"),
        "local": bool(record.get("local")),
        VERDICT_COUNT: verdicts,
        "failures": record["failures"],
        UNANSWERED: bool(record.get("unanswered")),
    }
    return note if verdicts else {**note, FAILED: record["failures"]}


SUMMARY = Summary("judgements@2", _note)
