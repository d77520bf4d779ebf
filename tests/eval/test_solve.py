"""eval.solve reports a wrong argument in one sentence, before it loads a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eval.runs.config import SolveConfig
from eval.solve import as_text, is_right, main, problem_of, scored_view
from vlprm.images import png
from vlprm.schema import Problem, Solution, StepScore
from vlprm.scoring.config import ScorerConfig
from vlprm.search import Cost, ScoredSolution, SearchResult
from vlprm.serving.config import ModelConfig
from vlprm.steps import split_steps


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image": (Path("nowhere.png"),)}, "there is no image nowhere.png; give the path of a PNG or JPEG file"),
        ({"image": (Path("README.md"),)}, "README.md cannot be read"),
        ({"question": " "}, "--question is empty; write the question about the images"),
        ({"choices": ("red",)}, "--choices: give 2 to 26 choices, or none; the number is now 1"),
        (
            {"reward_model": None},
            "best_of_n needs a reward model; set reward_model to a checkpoint folder of train.prm",
        ),
        ({"scorer": ScorerConfig("whole")}, "scorer.kind whole rewards a solution only at its end; set search.agg"),
        ({"method": "refined_best_of_n"}, "refined_best_of_n needs a critic"),
        ({"method": "best_of_m"}, "unknown method 'best_of_m'; did you mean 'best_of_n'?"),
    ],
)
def test_what_cannot_be_solved_is_said_at_once(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    (tmp_path / "image.png").write_bytes(png(Image.new("RGB", (32, 32))))
    asked = {
        "image": (tmp_path / "image.png",),
        "question": "Why?",
        "reward_model": (ModelConfig("prm"),),
        "run": tmp_path / "run",
    }
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        main(SolveConfig(**{**asked, **changes}))
    assert not (tmp_path / "run").exists()


def test_candidates_are_marked_by_the_answer_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(png(Image.new("RGB", (32, 32))))
    asked = SolveConfig((tmp_path / "image.png",), "How many?", answer_type="integer", answer="3")
    solutions = [
        Solution("p", (), answer, stop, 1) for answer, stop in (("3", "answer"), ("4", "answer"), (None, "length"))
    ]
    assert [is_right(problem_of(asked), solution) for solution in solutions] == [True, False, None]
    assert is_right(problem_of(replace(asked, answer=None)), solutions[0]) is None
    with pytest.raises(ValueError, match="the answer 'several' is not of type integer; give another answer_type"):
        problem_of(replace(asked, answer="several"))


def test_an_image_too_narrow_to_be_shown_is_refused(tmp_path: Path) -> None:
    line = tmp_path / "line.png"
    line.write_bytes(png(Image.new("RGB", (2010, 10))))
    with pytest.raises(ValueError, match=r"line\.png is 2010 x 10, with an aspect ratio above 200; pad it"):
        main(SolveConfig((line,), "Why?", tmp_path / "run", reward_model=(ModelConfig("prm"),)))
    assert not (tmp_path / "run").exists()


def test_a_step_without_a_score_is_shown_without_one() -> None:
    """The score is never shown as 0, and a solution without an answer says why it has none."""
    steps = tuple(split_steps("[reasoning] 1 + 1 = 2\n\n[reasoning] so"))
    cut = ScoredSolution(Solution("p", steps, None, "length", 9), (StepScore(0.75, None, None), None))
    said = as_text(SearchResult("p", "best_of_n", (cut,), [1.0], Cost(policy_sampled=9))).splitlines()
    assert said[:2] == ["0.750  [reasoning] 1 + 1 = 2", "       [reasoning] so"]
    assert "answer: none (length)" in said[2]
    assert [step.reward for step in scored_view(cut).steps] == [0.75, None]
    assert as_text(SearchResult("p", "best_of_n", (), [], Cost())) == "no candidate was found"


def test_each_question_gets_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second question by the same command neither is refused nor replaces the first one's page."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.png").write_bytes(png(Image.new("RGB", (32, 32))))

    async def nothing(problem: Problem, config: SolveConfig) -> SearchResult:
        return SearchResult(problem.id, config.method, (), [], Cost())

    monkeypatch.setattr("eval.solve.searched", nothing)
    for question in ("How many?", "Which colour?", "How many?"):
        main(SolveConfig((tmp_path / "image.png",), question, method="self_consistency"))
    assert len(list(tmp_path.glob("runs/solve/*/report.html"))) == 2
