"""eval.faithfulness on a policy that looks at its crops, and on one that does not."""

import asyncio
import json
from pathlib import Path

import pytest

from eval.faithfulness import CONTROLS, main, measure, summary
from eval.runs.config import FaithfulnessConfig
from tests.teacher import TeacherEngine
from vlprm.policy import Continuation, Request
from vlprm.schema import BLANK, Problem, Region
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS

CONFIG = FaithfulnessConfig(Path("unused"), problems=12, n=2, rollouts=2, max_tokens=160)


class Blind(TeacherEngine):
    """Zooms to the right place, and then writes the same text for every crop."""

    def crop_tokens(self, problem: Problem, region: Region) -> int:
        return 16


class Looking(Blind):
    """Names the print on the plate in its last crop, and `nothing` for a crop without a plate."""

    async def sample(self, request: Request) -> list[Continuation]:
        last = request.steps[-1].region if request.steps else None
        scene = request.problem.meta["scene"]
        if last is None or len(request.steps) < 2 * len(scene["content"]["asked"]):
            return await super().sample(request)
        plates = TASKS["fine_print"].regions({**scene, "content": {**scene["content"], "asked": scene["layout"]}})
        seen = {name: last.overlap(plate) / plate.area for name, plate in plates.items()}
        name = max(seen, key=lambda name: seen[name])
        print_ = scene["content"]["plates"][name.removesuffix(" plate")][2]
        answer = print_ if last.image != BLANK and seen[name] > 0.9 else "nothing"
        return [Continuation(f"[answer] {answer}", 3, True)] * request.n


def results(engine: TeacherEngine) -> dict[str, dict[str, float]]:
    reads = (TASKS["fine_print"].problem("test", i) for i in range(40))
    problems = [p for p in reads if p.meta["question_type"] == "read"][: CONFIG.problems]
    rows, stops = asyncio.run(measure(engine, problems, TASKS, CONFIG))
    assert stops == {"answer": CONFIG.problems * CONFIG.n}
    return summary(rows)


def test_a_policy_that_looks_answers_by_what_is_shown() -> None:
    found = results(Looking(slip_rate=0))
    assert [found[f"changed_{name}"]["mean"] for name in ("own", "blank", "right")] == [0, 1, 0]
    assert found["changed_random"]["mean"] > 0.6
    assert found["changed_blank_less_own"] == {"mean": 1, "ci": [1, 1], "of": CONFIG.problems}
    assert found["used"]["mean"] == 1
    assert [found[f"no_answer_{name}"]["mean"] for name in CONTROLS] == [0] * 4
    careless = results(Looking(slip_rate=0.3))
    assert 0 < careless["erroneous_zooms"]["mean"] < 1
    assert careless["right_own"]["mean"] < careless["right_right"]["mean"] == 1


def test_a_policy_that_does_not_look_answers_as_before() -> None:
    found = results(Blind(slip_rate=0))
    assert [found[f"changed_{name}"]["mean"] for name in CONTROLS] == [0] * 4
    assert (found["used"]["mean"], found["coverage"]["mean"], found["correct_zooms"]["mean"]) == (0, 1, 1)
    assert (found["zooms"]["mean"], found["crop_tokens"]["mean"], found["right"]["mean"]) == (1, 16, 1)


def test_the_command_writes_what_it_found(backbone: Path, tmp_path: Path) -> None:
    main(FaithfulnessConfig(tmp_path / "run", ModelConfig(str(backbone)), problems=2, n=1, rollouts=1, max_tokens=4))
    written = json.loads((tmp_path / "run/results.json").read_text())
    assert written["tokens"]["of"] == 2
    assert sum(written["stops"].values()) == 2
    with pytest.raises(ValueError, match="chart has no true regions"):
        main(FaithfulnessConfig(tmp_path / "other", ModelConfig(str(backbone)), tasks=("chart",)))
