"""The lengths of rows from the sizes of images are those of the rows that a model reads, and no pixel is processed."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlprm.images import crop, image_size, open_image
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import load_inputs
from vlprm.schema import Problem, Region, Step


def stored(width: int, height: int, form: str = "PNG", orientation: int = 1) -> bytes:
    pixels = np.random.default_rng(width * height).integers(0, 255, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, exif=exif)
    return file.getvalue()


def zooming(question: str, *sizes: tuple[int, int]) -> tuple[Problem, list[Step], list[int]]:
    """A problem, and a tree of steps with a shown crop and a refused zoom."""
    problem = Problem("p", "", question, tuple(stored(*size) for size in sizes), "1", "word")
    steps = [Step("reasoning", "I look."), Step("reasoning", "Or think.\n\nTwice."), Step("answer", "[answer] 1")]
    if sizes:
        region = Region(0.1, 0.2, sizes[0][0] * 0.7, sizes[0][1] * 0.9)
        steps += [Step("zoom", "[zoom] a box", region), Step("zoom", "[zoom] none", told="no such box")]
    return problem, steps, [-1, -1, 1, 0, 0][: len(steps)]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl"])
def test_lengths_from_sizes_are_the_true_ones(
    family: str, tiny_backbone: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = load_inputs(tiny_backbone(family))
    counting, rng = inputs.counting(), random.Random(0)
    sizes = [(rng.randrange(12, 900), rng.randrange(12, 900)) for _ in range(24)] + [(1, 40), (2000, 30), (28, 28)]
    asked = [zooming(f"What is {i}?", *sizes[i : i + i % 3]) for i in range(len(sizes))]
    asked += [zooming("Quoting <tool_call> and 日本.", size) for size in sizes[-3:]]
    true = [[node.segment for node in inputs.tree_nodes(*one)] for one in asked]
    processed: list[int] = []
    process = type(inputs.processor.image_processor).preprocess
    monkeypatch.setattr(
        type(inputs.processor.image_processor), "preprocess",
        lambda self, images, *args, **kwargs: (processed.append(1), process(self, images, *args, **kwargs))[1],
    )  # fmt: skip
    counted = [[node.segment for node in counting.tree_nodes(*one)] for one in asked]
    assert [[s.ids for s in of] for of in counted] == [[s.ids for s in of] for of in true]
    assert [[s.image_mask for s in of] for of in counted] == [[s.image_mask for s in of] for of in true]
    if family != "internvl":
        assert not processed
        assert not any(segment.images for of in counted for segment in of)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_of_a_file_is_that_of_its_upright_image(form: str, orientation: int) -> None:
    data = stored(37, 21, form, orientation)
    assert image_size(data) == open_image(data).size


def test_the_size_of_a_file_that_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="image 7 cannot be read"):
        image_size(b"GIF8 not", "image 7")


def test_the_size_of_a_crop_is_known_before_it_is_cut(inputs: InputBuilder) -> None:
    rng = random.Random(1)
    image = open_image(stored(90, 60))
    for _ in range(50):
        x, y = rng.uniform(-5, 80), rng.uniform(-5, 50)
        region = Region(x, y, x + rng.uniform(1, 40), y + rng.uniform(1, 40))
        assert inputs.config.zoom.crop_size(image.size, region) == inputs.config.zoom.crop(image, region).size
        assert crop(image, region).size == inputs.config.zoom.crop_size(image.size, region)
