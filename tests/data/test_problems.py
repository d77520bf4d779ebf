"""A user's own problems: every defect is counted, and none becomes a label."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_synth import judge, label, trees
from data_synth.search.config import TreeSearchConfig
from data_synth.search.store import TREES, TreeRun
from eval.runs.config import SolveConfig
from eval.solve import problem_of
from tests.stand_in import StandIn, config_of
from vlprm.answers import choices_of, extract_answer
from vlprm.data.problem_file import ProblemFile
from vlprm.errors import ProblemError
from vlprm.images import open_image
from vlprm.model.inputs import InputBuilder
from vlprm.prompts import judge_text, user_text
from vlprm.runs.journal import read_records
from vlprm.schema import Problem
from vlprm.serving.config import ModelConfig, ServerConfig
from vlprm.steps import split_steps

GOOD = {"id": "good", "question": "How many?", "images": ["a.png"], "answer": "3", "answer_type": "integer"}


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


RED = Image.new("RGB", (60, 40), (200, 20, 20))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").write_bytes(encoded(RED))
    (tmp_path / "outside.png").write_bytes(encoded(RED))
    return data


def write(folder: Path, *records: Any) -> Path:
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


IMAGES: dict[str, tuple[bytes, str | None]] = {
    "truncated": (encoded(RED)[:70], "image_unreadable"),
    "no image": (b"GIF89a", "image_unreadable"),
    "empty": (b"", "image_unreadable"),
    "huge": (encoded(Image.new("1", (20_000, 20_000))), "image_unreadable"),
    "a line": (encoded(Image.new("RGB", (2_010, 10))), "image_aspect"),
    "cmyk": (encoded(Image.new("CMYK", (60, 40), (0, 200, 200, 0)), "JPEG"), None),
    "animated": (encoded(RED, "GIF", save_all=True, append_images=[Image.new("RGB", (60, 40))]), None),
    "a pixel": (encoded(Image.new("RGB", (1, 1), (200, 20, 20))), None),
    "16 bits": (encoded(Image.fromarray(np.full((40, 60), 30_000, dtype=np.uint16))), None),
    "see-through": (encoded(Image.new("RGBA", (60, 40), (200, 20, 20, 230))), None),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_used_or_its_problem_is_counted(name: str, folder: Path, inputs: InputBuilder) -> None:
    data, failure = IMAGES[name]
    (folder / "x").write_bytes(data)
    problems = ProblemFile(write(folder, {**GOOD, "images": ["x"]}))
    if failure is not None:
        with pytest.raises(ProblemError, match="good: ") as caught:
            problems.problem("good")
        assert caught.value.cause == failure
        return
    problem = problems.problem("good")
    red, green, _ = open_image(problem.images[0]).getpixel((0, 0))
    # The first frame with converted colours; 16-bit grey is still grey.
    assert (red == green == 116) if name == "16 bits" else (red > 150 > 100 > green)
    assert len(inputs.row(problem, ()).images) == 1  # the real processor takes it


RECORDS: dict[str, dict[str, Any]] = {
    "image_outside": {"images": ["../outside.png"]},
    "image_missing": {"images": ["none.png"]},
    "no_image": {"images": []},
    "no_question": {"question": " "},
    "no_answer": {"answer": None},
    "not_text": {"answer": 3},
    "bad_answer": {"answer": "several"},
    "answer_type": {"answer_type": "prose"},
    "bad_choices": {"choices": "A or B"},
    "half_character": {"question": "How \ud83d?"},
}


@pytest.mark.parametrize("failure", RECORDS)
def test_a_problem_that_cannot_be_used_says_why(failure: str, folder: Path) -> None:
    with pytest.raises(ProblemError, match="good") as caught:
        ProblemFile(write(folder, {**GOOD, **RECORDS[failure]})).problem("good")
    assert caught.value.cause == failure


CHOICES = [json.loads(line) for line in (Path(__file__).parents[1] / "fixtures" / "choices.jsonl").open()]


def test_choices_are_in_the_prompt_and_the_gold_answer_is_one_of_them(folder: Path) -> None:
    """In a file and in eval.solve alike."""
    for case in CHOICES:
        row = {name: case[name] for name in ("question", "choices", "answer_type", "answer")}
        file = ProblemFile(write(folder, {**GOOD, **row}))
        config = SolveConfig((folder / "a.png",), **{**row, "choices": tuple(row["choices"])})
        made: list[Callable[[], Problem]] = [lambda file=file: file.problem("good"), lambda c=config: problem_of(c)]
        for problem in made:
            if "refused" in case:
                with pytest.raises(ProblemError, match=re.escape(case["refused"])):
                    problem()
                continue
            found = problem()
            assert user_text("plain@1", found) == case["asked"]
            assert judge_text("judge@1", found, ["1"], 0).count(case["asked"]) == 1
            assert (found.answer, list(choices_of(found))) == (case["gold"], case["choices"])
            assert extract_answer(split_steps(f"[answer] {case['answer']}"), found.answer_type, choices_of(found))


def test_images_are_seen_as_a_viewer_shows_them() -> None:
    """They are upright, and transparent parts are white: otherwise black print on a transparent ground would be black
    on black."""
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    assert open_image(encoded(RED, "JPEG", exif=turned)).size == (40, 60)
    clear = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    palette = clear.convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    for image in (clear, palette, Image.new("LA", (10, 10), (0, 0))):
        assert open_image(encoded(image)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("name", ["/etc/hostname", "link.png", ".", "a\0.png"])
def test_no_path_leads_out(name: str, folder: Path) -> None:
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    with pytest.raises(ProblemError) as caught:
        ProblemFile(write(folder, {**GOOD, "images": [name]})).problem("good")
    assert caught.value.cause == ("image_outside" if name in ("/etc/hostname", "link.png") else "image_missing")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "no problem file .*problems.jsonl; write one JSON object per line"),
        (lambda path: path.write_text(""), "has no problems; write one JSON object per line"),
        (lambda path: path.write_text("{}\n"), "line 1 has no id"),
        (lambda path: path.write_text('{"id": "a"}\n{"id"\n'), "line 2 is not JSON"),
        (
            lambda path: path.write_text('{"id": "a"}\n' * 2),
            "line 2: the id 'a' occurs twice; give each problem its own id",
        ),
    ],
)
def test_a_file_of_another_kind_is_named(spoil: Callable[[Path], Any], message: str, folder: Path) -> None:
    path = write(folder, GOOD)
    spoil(path)
    with pytest.raises(ValueError, match=message):
        ProblemFile(path)


def test_blank_lines_are_skipped(folder: Path) -> None:
    path = write(folder, GOOD, {**GOOD, "id": "other"})
    path.write_text("\n" + path.read_text().replace("\n", "\n \n\n"))
    problems = ProblemFile(path)
    assert [problems.problem(name).id for name in problems.ids] == ["good", "other"]


def test_a_run_goes_on_without_the_problems_that_cannot_be_used(
    folder: Path, backbone: Path, server: StandIn, tmp_path: Path
) -> None:
    bad = [{**GOOD, **changes, "id": failure} for failure, changes in RECORDS.items()]
    spelt = {**GOOD, "id": "control_token", "question": "<|im_end|>?"}
    path = write(folder, *bad, {**GOOD, "solution": "1 + 2"}, spelt)
    search = TreeSearchConfig(root_rollouts=4, max_tokens=8)
    for name, served in (("here", False), ("served", True)):
        policy = ModelConfig(str(backbone), config_of(server) if served else ServerConfig(), "cpu")
        trees.main(trees.TreesConfig(tmp_path / name, policy, problem_file=path, search=search))
        run = TreeRun(tmp_path / name)
        assert {i: failure for i, (failure, _) in run.failures.items()} == {f: f for f in (*RECORDS, "control_token")}
        (searched,) = run
        assert (searched.problem.id, searched.problem.meta["solution"]) == ("good", "1 + 2")
    assert len(list(read_records(tmp_path / "here" / TREES))) == len(RECORDS) + 2
    with pytest.raises(ValueError, match="good is a problem of a file, and this judge knows drawn problems alone"):
        judge.main(judge.JudgeConfig(tmp_path / "served", tmp_path / "judged"))
    label.main(label.LabelConfig(tmp_path / "served", tmp_path / "labels", rule="mc"))
