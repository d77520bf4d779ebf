"""Drawn problems as a task of lmms-eval, named by the task file of tests/integrations/test_lmms.py."""

from __future__ import annotations

from typing import Any


def doc_to_visual(doc: dict[str, Any]) -> list[Any]:
    return [doc["image"]]


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return {"right": float(results[0] == doc["answer"]), "empty": float(not results[0])}
