"""A checkpoint's processor decides the image size, unless vlprm.json or a recipe sets limits; a saved folder gives
everyone the same size."""

from __future__ import annotations

import io
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from transformers import AutoProcessor

from tests.tiny_backbones import BACKBONES, DECLARED, OUTSIDE
from vlprm.images import open_image
from vlprm.model.checkpoint_config import CHECKPOINT_FILE, load_checkpoint_config
from vlprm.model.families import FAMILIES
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import checkpoint_folder, load_inputs
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.schema import Problem
from vlprm.serving.messages import probe_problem

Folders = Callable[[str], Path]
OWN = {"shortest_edge": 56 * 56, "longest_edge": 250_000}  # the processor's limits; vlprm.json sets none
QUESTION = "How many?"
families = pytest.mark.parametrize("family", [*BACKBONES, *OUTSIDE])
limited = pytest.mark.parametrize("family", [name for name in BACKBONES if FAMILIES[name].pixel_limits])


@pytest.fixture(scope="module")
def photo() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (1600, 1200), (90, 120, 60)).save(file, "JPEG")
    return file.getvalue()


def seen(inputs: InputBuilder, photo: bytes) -> tuple[int, Any]:
    """The image tokens of a prompt with the photo, and its patch grid if there is one."""
    prompt = inputs.prompt(Problem("p", "t", QUESTION, (photo,), None, "word"))
    return sum(prompt.image_mask), _grid(prompt.images[0])


def stock(folder: Path, photo: bytes) -> tuple[int, Any]:
    """The same from plain transformers, without our code."""
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    batch = processor(text=[text], images=[[open_image(photo)]], return_tensors="pt")
    config = json.loads((folder / "config.json").read_text())
    image = config.get("image_token_id", config.get("image_token_index"))
    return int((batch["input_ids"] == image).sum()), _grid(batch)


def _grid(batch: Any) -> Any:
    return batch["image_grid_thw"].tolist() if "image_grid_thw" in batch else None


def copied(source: Path, folder: Path, family: str, declared: dict[str, Any] | None) -> Path:
    """A copy of the folder with limits in its processor, if that takes any, and with this `vlprm.json` or none."""
    shutil.copytree(source, folder)
    path = folder / "processor_config.json"
    config = json.loads(path.read_text())
    if family in FAMILIES and FAMILIES[family].pixel_limits:
        config["image_processor"]["size"] = OWN
        path.write_text(json.dumps(config))
    (folder / CHECKPOINT_FILE).unlink()
    if declared is not None:
        (folder / CHECKPOINT_FILE).write_text(json.dumps(declared))
    return folder


def profile_without_limits(family: str) -> dict[str, Any]:
    if family in OUTSIDE:
        return dict(json.loads((DECLARED / CHECKPOINT_FILE).read_text()))
    return {"dialect": FAMILIES[family].dialect, "prompt_template": "plain@1", "aggregation": "min"}


@families
def test_a_photo_is_seen_as_the_folders_own_processor_shows_it(
    tiny_backbone: Folders, tmp_path: Path, photo: bytes, family: str
) -> None:
    """Plain transformers reads the saved folder in the same way."""
    folder = copied(tiny_backbone(family), tmp_path / "backbone", family, profile_without_limits(family))
    made = load_reward_model(folder, new_head="step")
    assert seen(made.inputs, photo) == stock(folder, photo)
    save_reward_model(made, tmp_path / "prm", made.config)
    assert stock(tmp_path / "prm", photo) == stock(folder, photo)
    assert seen(load_inputs(tmp_path / "prm"), photo) == stock(folder, photo)


@pytest.mark.parametrize("family", [name for name in BACKBONES if FAMILIES[name].dialect != "none"])
def test_so_is_it_without_a_profile(tiny_backbone: Folders, tmp_path: Path, photo: bytes, family: str) -> None:
    folder = copied(tiny_backbone(family), tmp_path / "backbone", family, None)
    assert seen(load_inputs(folder), photo) == stock(folder, photo)


@limited
@pytest.mark.parametrize(
    "declared", [{"max_pixels": 90_000}, {"min_pixels": 100_000}, {"min_pixels": 64, "max_pixels": 40_000}]
)
def test_limits_that_a_profile_declares_are_saved_for_everybody(
    tiny_backbone: Folders, tmp_path: Path, photo: bytes, family: str, declared: dict[str, int]
) -> None:
    """A limit that it leaves out is the processor's own."""
    checkpoint_config = profile_without_limits(family) | declared
    folder = copied(tiny_backbone(family), tmp_path / "backbone", family, checkpoint_config)
    made = load_reward_model(folder, new_head="step")
    least, most = declared.get("min_pixels", OWN["shortest_edge"]), declared.get("max_pixels", OWN["longest_edge"])
    assert made.inputs.pixel_limits == (least, most)
    save_reward_model(made, tmp_path / "prm", made.config)
    assert stock(tmp_path / "prm", photo) == seen(made.inputs, photo)
    assert (stock(folder, photo) == seen(made.inputs, photo)) == (most == OWN["longest_edge"])
    small = io.BytesIO()
    Image.new("RGB", (40, 30)).save(small, "PNG")
    assert stock(tmp_path / "prm", small.getvalue()) == seen(made.inputs, small.getvalue())


def test_limits_are_logged_when_a_folder_is_loaded(
    tiny_backbone: Folders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = copied(tiny_backbone("qwen2_5_vl"), tmp_path / "b", "qwen2_5_vl", profile_without_limits("qwen2_5_vl"))
    load_inputs(folder)
    assert f"{folder}: images are seen at 3136 to 250000 pixels, the limits of its processor" in caplog.text
    load_inputs(folder, replace(load_checkpoint_config(folder), max_pixels=90_000))
    assert "images are seen at 3136 to 90000 pixels; its processor's own limits are 3136 to 250000" in caplog.text
    load_inputs(tiny_backbone("internvl"))
    assert "the processor resizes images to fixed sizes" in caplog.text


@pytest.mark.parametrize(
    ("family", "declared", "said"),
    [
        ("internvl", {"max_pixels": 4096}, "resizes every image to fixed sizes; leave out min_pixels"),
        (
            "qwen3_vl",
            {"max_pixels": 100},
            r"min_pixels 3136 is above max_pixels 100; lower min_pixels or raise max_pixels",
        ),
        ("qwen3_vl", {"min_pixels": 0}, r"0 is not a number of pixels; give min_pixels and max_pixels of at least 1"),
    ],
)
def test_limits_that_cannot_be_are_refused(
    tiny_backbone: Folders, tmp_path: Path, family: str, declared: dict[str, int], said: str
) -> None:
    folder = copied(tiny_backbone(family), tmp_path / "b", family, profile_without_limits(family) | declared)
    with pytest.raises(ValueError, match=said):
        load_inputs(folder)


def test_a_server_is_probed_with_an_image_on_either_side_of_the_limits(tiny_backbone: Folders, tmp_path: Path) -> None:
    """The larger image is never larger than what every server reads, however high the limit."""
    folder = copied(tiny_backbone("qwen3_vl"), tmp_path / "b", "qwen3_vl", profile_without_limits("qwen3_vl"))
    inputs = load_inputs(folder)
    sides = [open_image(data).width for data in probe_problem(inputs).images]
    assert sides == [28, 1000]
    high = load_inputs(folder, replace(inputs.config, max_pixels=16_777_216))
    assert [open_image(data).width for data in probe_problem(high).images][1] < 1500


@pytest.mark.parametrize("name", ["builtin/policy", "builtin/backbone"])
def test_the_built_in_models_see_what_they_were_taught_on(name: str, photo: bytes) -> None:
    folder = checkpoint_folder(name)
    inputs = load_inputs(folder)
    assert inputs.pixel_limits == (32 * 32, 128 * 128)
    assert (inputs.config.min_pixels, inputs.config.max_pixels) == (32 * 32, 128 * 128)
    assert seen(inputs, photo) == stock(folder, photo) == (54, [[1, 12, 18]])


@pytest.mark.parametrize("recipe", ["vl_prm", "gm_prm_critic"])
def test_recipes_of_vl_prms_say_its_limits(recipe: str) -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / f"configs/train/{recipe}.yaml").read_text())
    assert (config["min_pixels"], config["max_pixels"]) == (256 * 28 * 28, 1280 * 28 * 28)
