"""What the index of a run's judgements says about each record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlprm.runs.index import FAILED, UNANSWERED, Note, Summary


def _note(record: Mapping[str, Any]) -> Note:
    verdicts = sum(verdict is not None for verdict in record["verdicts"])
    note = {
        "judge": record["judge"],
        "verdicts": verdicts,
        "failures": record["failures"],
        UNANSWERED: bool(record.get("unanswered")),
    }
    return note if verdicts else {**note, FAILED: record["failures"]}


SUMMARY = Summary("judgements@1", _note)
