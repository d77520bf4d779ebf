"""Held-out problems share no image with training problems."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.learnt import load_trees
from train.reward.config import PrmConfig, RowsConfig
from train.reward.planning import split_rows
from vlprm.images import open_image, png
from vlprm.model.inputs import InputBuilder

Asked = tuple[str, Sequence[str]]  # a question, and the files of its images


def file_of(colour: int, level: int = 1) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (colour, 0, 255 - colour)).save(file, "PNG", compress_level=level)
    return file.getvalue()


def dataset(folder: Path, problems: Sequence[Asked]) -> Path:
    """A dataset in TRL's format; `7.png` and `7-again.png` are different files with the same pixels."""
    for name in {name for _, images in problems for name in images}:
        stem, _, again = name.removesuffix(".png").partition("-")
        (folder / name).write_bytes(file_of(int(stem), 9 if again else 1))
    records = [
        {"prompt": question, "completions": ["one", "two"], "labels": [True, False], "images": list(images)}
        for question, images in problems
    ]
    path = folder / "d.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def sides(path: Path, inputs: InputBuilder, share: float, seed: int = 0) -> list[list[tuple[str, set[bytes]]]]:
    """The question and the pixels of each training problem, and of each held-out problem."""
    both = split_rows(PrmConfig(path, path.parent, held_out=share, seed=seed), inputs)
    problems = [[tree[0].problem for at in range(len(part)) for tree in part.examples(at)] for part in both]
    return [[(p.question, {open_image(data).tobytes() for data in p.images}) for p in part] for part in problems]


FIVE_AN_IMAGE = [(f"What is {n} of {i}?", [f"{i}.png"]) for i in range(12) for n in range(5)]
LINKED = [(f"Compare {i}.", [f"{10 * i}.png", f"{10 * i + 1}.png"]) for i in range(8)]
LINKED += [(f"And {i}?", [f"{10 * i + 1}.png", f"{10 * i + 2}.png"]) for i in range(8)]
STORED_TWICE = [(f"What is {i}{k}?", [f"{i}{k}.png"]) for i in range(10) for k in ("", "-again")]
WORDS = [(f"What is\n{i} + 1?", []) for i in range(10)] + [(f"What  is {i} + 1?", []) for i in range(10)]
CASES = {"five an image": FIVE_AN_IMAGE, "linked": LINKED, "stored twice": STORED_TWICE, "words": WORDS}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_no_image_is_on_both_sides(case: str, seed: int, tmp_path: Path, inputs: InputBuilder) -> None:
    learnt, kept = sides(dataset(tmp_path, CASES[case]), inputs, 0.3, seed)
    assert len(learnt) + len(kept) == len(CASES[case])
    assert 0.1 * len(CASES[case]) <= len(kept) <= 0.3 * len(CASES[case])
    for question, images in kept:
        for other, seen in learnt:
            assert not images & seen
            assert images or seen or " ".join(question.split()) != " ".join(other.split())


def test_problems_that_share_nothing_are_split_as_they_are_shuffled(tmp_path: Path, inputs: InputBuilder) -> None:
    path = dataset(tmp_path, [(f"What is {i}?", [f"{i}.png"]) for i in range(20)])
    order = [tree[0].problem.question for tree in load_trees(path, RowsConfig())]
    random.Random(5).shuffle(order)
    learnt, kept = sides(path, inputs, 0.2, seed=5)
    assert [question for question, _ in kept] == order[:4]
    assert {question for question, _ in learnt} == set(order[4:])


def test_a_smallest_group_is_held_out_where_none_fits(tmp_path: Path, inputs: InputBuilder) -> None:
    problems = [(f"What is {n} of {i}?", [f"{i}.png"]) for i, many in enumerate((6, 3, 5)) for n in range(many)]
    learnt, kept = sides(dataset(tmp_path, problems), inputs, 0.05)
    assert (len(learnt), {question[-2] for question, _ in kept}) == (11, {"1"})


@pytest.mark.parametrize("images", [["1.png"], []])
def test_problems_that_all_share_one_image_cannot_be_split(
    images: list[str], tmp_path: Path, inputs: InputBuilder
) -> None:
    problems = [(f"What is {n}?" if images else " " * n + "What?", images) for n in range(6)]
    said = r"d\.jsonl: its 6 problems share their images .*must not be seen in training; add problems with other images"
    with pytest.raises(ValueError, match=said):
        sides(dataset(tmp_path, problems), inputs, 0.2)


def test_the_same_pixels_are_stored_in_two_ways() -> None:
    assert file_of(7, 1) != file_of(7, 9)
    assert png(open_image(file_of(7, 1))) == png(open_image(file_of(7, 9)))
