"""The cost of a stage: summed over its runs, and written while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlprm.runs import cost as cost_module
from vlprm.runs.cost import Cost, Meter, Usage, cost_of, summed
from vlprm.runs.folder import open_run
from vlprm.serving.config import ModelConfig, ServerConfig, device_count


def test_runs_of_a_stage_add_up_and_stages_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    for stage, seconds, used in (("trees", 5.0, 3), ("judge", 1.0, 2), ("trees", 2.0, 4)):
        with Meter(tmp_path, stage, devices=4) as meter:
            meter.used(Usage(1, 0, 1, 1))
            meter.used(Usage(used, 1, 10 * used, used, cached=used, cached_of=2 * used))  # the total so far
            now += seconds
    costs = cost_of(tmp_path)
    assert costs["trees"] == Cost(Usage(7, 2, 70, 7, 7, 14), 28.0)
    assert costs["judge"] == Cost(Usage(2, 1, 20, 2, 2, 4), 4.0)
    assert costs["trees"].cache_hits == 0.5
    assert Cost().cache_hits is None
    assert summed(list(costs.values())) == Cost(Usage(9, 3, 90, 9, 9, 18), 32.0)


def test_a_killed_run_has_its_cost_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter(tmp_path, "trees", 1)
    meter.used(Usage(1))
    assert not cost_of(tmp_path)
    monkeypatch.setattr(cost_module, "EVERY", 0.0)
    meter.used(Usage(2))
    meter.used(Usage(3))
    assert cost_of(tmp_path)["trees"].usage == Usage(3)


def test_a_cost_alone_is_no_work_of_a_run(tmp_path: Path) -> None:
    open_run(tmp_path, "a: 1\n", 0)
    with Meter(tmp_path, "trees", 1):
        pass
    open_run(tmp_path, "a: 2\n", 0)


def test_devices_are_those_of_the_servers_or_of_the_processes() -> None:
    two = ServerConfig(("http://a/v1", "http://b/v1"), "m", gpus=4)
    assert device_count(ModelConfig("x", two), workers=3) == 8
    assert device_count(ModelConfig("x"), workers=3) == 3
