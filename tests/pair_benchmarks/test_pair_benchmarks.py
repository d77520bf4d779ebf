"""Pair benchmarks: rows by hand in the published layouts, and the official rules on numbers computed by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Image, List, Value

from tests.pair_benchmarks.rows import (
    DRAWN,
    RIGHT,
    WRONG,
    mmrb2_row,
    multimodal_row,
    vl_row,
    write_mmrb2,
    write_multimodal,
    write_vl,
)
from vlprm.errors import RecordError, UserError
from vlprm.pair_benchmarks import PAIR_BENCHMARKS
from vlprm.pair_benchmarks.counting import measured
from vlprm.pair_benchmarks.pairs import Pair, Picture, Preference, load_pairs, pictures, said

WRITERS: dict[str, Callable[..., Path]] = {
    "mmrb2": write_mmrb2,
    "vl_rewardbench": write_vl,
    "multimodal_rewardbench": write_multimodal,
}
ROWS: dict[str, Callable[..., dict[str, Any]]] = {
    "mmrb2": mmrb2_row,
    "vl_rewardbench": vl_row,
    "multimodal_rewardbench": multimodal_row,
}


def pairs_of(name: str, folder: Path, *changes: dict[str, Any]) -> tuple[Pair, ...]:
    rows = [ROWS[name](**of_one) for of_one in changes]
    return load_pairs(PAIR_BENCHMARKS[name], WRITERS[name](folder, rows)).pairs


def test_a_pair_of_mmrb2_has_the_images_of_its_prompt_and_of_its_responses(tmp_path: Path) -> None:
    other = {"id": "vstar_2", "chosen": "a"}
    pair, second = pairs_of("mmrb2", tmp_path, {}, other)
    assert (pair.key, pair.group, pair.better, second.better) == ("vstar_1", "vstar", 1, 0)
    assert pair.problem_id == second.problem_id == "vstar/1"
    assert (pair.question, pair.images) == ("How many discs are red?", ("input_images/a.png",))
    assert said(pair.responses[1], 1) == "I zoom in (image 2).\n\nThe answer is 3."
    assert pictures(pair.responses[1]) == ("images/b.png",)
    found = load_pairs(PAIR_BENCHMARKS["mmrb2"], tmp_path)
    assert found.open_images(("images/b.png",)) == (DRAWN[1],)
    with pytest.raises(RecordError, match="leads out of"):
        found.open_images(("../b.png",))


def test_an_image_between_the_words_of_a_prompt_is_named(tmp_path: Path) -> None:
    content = [["image", "a"], ["text", "First"], ["image", "b"], ["text", "second. Which?"]]
    (pair,) = pairs_of("mmrb2", tmp_path, {"prompt_content": content})
    assert pair.question == "First (image 2) second. Which?"
    assert pair.images == ("a", "b")
    assert said(("see ", Picture("c"), Picture("d"), "\n\nSo"), 0) == "see (image 1) (image 2)\n\nSo"


def test_a_row_of_the_hub_is_the_pair_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images are lists of decoded images, for which the text has numbered marks."""
    row = {
        "pair_id": "vstar_1", "prompt_source": "vstar", "prompt_metadata": '{"id": "1"}', "chosen": "b",
        "prompt_text": "<image_1>How many discs are red?", "prompt_images": [{"bytes": DRAWN[0], "path": None}],
        "response_a_text": WRONG, "response_a_images": [],
        "response_b_text": "I zoom in<image_1>.\n\nThe answer is 3.",
        "response_b_images": [{"bytes": DRAWN[1], "path": None}],
    }  # fmt: skip
    features = Features({n: List(Image()) if n.endswith("images") else Value("string") for n in row})
    stored = Dataset.from_list([row], features=features)

    def of_hub(path: str, config: str, split: str) -> Dataset:
        assert (path, config, split) == ("rl-research/multimodal-rewardbench-2", "reasoning", "test")
        return stored

    monkeypatch.setattr("datasets.load_dataset", of_hub)
    hub = load_pairs(PAIR_BENCHMARKS["mmrb2"], None)
    (wanted,), (pair,) = pairs_of("mmrb2", tmp_path, {}), hub.pairs
    assert (pair.key, pair.problem_id, pair.question, pair.better) == ("vstar_1", "vstar/1", wanted.question, 1)
    assert [said(parts, 1) for parts in pair.responses] == [said(parts, 1) for parts in wanted.responses]
    assert hub.open_images((*pair.images, *pictures(pair.responses[1]))) == (DRAWN[0], DRAWN[1])


def test_the_groups_of_vl_rewardbench_come_from_the_ids(tmp_path: Path) -> None:
    ids = ["RLAIF-V-1", "RLHF-V-2", "hallucination_pair-3", "mathverse_4", "mmmu_pro-5", "wildvision-battle-6", "x7"]
    pairs = pairs_of("vl_rewardbench", tmp_path, *({"id": one} for one in ids), {"human_ranking": [1, 0]})
    assert [pair.group for pair in pairs[:7]] == [*["hallucination"] * 3, *["reasoning"] * 2, *["general"] * 2]
    assert (pairs[0].key, pairs[0].better, pairs[7].better) == ("1/RLAIF-V-1", 0, 1)
    assert (pairs[0].question, pairs[0].images) == ("How many discs are red?", (DRAWN[0],))
    assert pairs[0].responses == ((RIGHT,), (WRONG,))
    assert len({pair.problem_id for pair in pairs}) == 1


def test_the_categories_of_multimodal_rewardbench_are_split_as_its_script_does(tmp_path: Path) -> None:
    rows = [
        {}, {"ID": "EMMA-Coding_3"}, {"ID": "PAIRS_1", "Category": "safety"}, {"ID": "hateful_2", "Category": "safety"},
        {"ID": "mathvista_9", "Category": "vqa", "Better": "Output1"},
    ]  # fmt: skip
    pairs = pairs_of("multimodal_rewardbench", tmp_path, *rows)
    groups = ["reasoning/math", "reasoning/coding", "safety/bias", "safety/toxicity", "vqa"]
    assert [pair.group for pair in pairs] == groups
    assert [pair.better for pair in pairs] == [1, 1, 1, 1, 0]


# --- rows of another version


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mmrb2", {"chosen": "tie"}, "reasoning.json, row 1: its chosen is 'TIE', not 'A' or 'B'"),
        ("mmrb2", {"prompt_content": None}, "row 1: it has no prompt_content"),
        ("mmrb2", {"prompt_content": [["video", "a"]]}, "has \\['video', 'a'\\], which is neither a text nor an image"),
        ("mmrb2", {"prompt_content": [["image", "a"]]}, "row 1: its prompt has no text"),
        ("mmrb2", {"response_b": "3"}, "row 1: its response_b is a str; make it a dict"),
        ("vl_rewardbench", {"human_ranking": [0, 0]}, "row 1: its human_ranking is \\[0, 0\\], not \\[0, 1\\] or"),
        ("vl_rewardbench", {"response": [RIGHT]}, "its response is not a list of two texts"),
        ("vl_rewardbench", {"image": None}, "row 1: it has no image"),
        ("multimodal_rewardbench", {"Better": "A"}, "its Better is 'A', not 'Output1' or 'Output2'"),
        ("multimodal_rewardbench", {"Text": ""}, "row 1: its Text is empty"),
        ("multimodal_rewardbench", {"Image": 3}, "its Image is neither a path nor a file"),
    ],
)
def test_a_row_of_another_version_is_refused(name: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        pairs_of(name, tmp_path, changes)


def test_a_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    for name, message in (
        ("mmrb2", "there is no file .*reasoning.json"),
        ("vl_rewardbench", "has no file test-00000-of-00001.parquet"),
        ("multimodal_rewardbench", "there is no file .*all_data.json"),
    ):
        with pytest.raises(UserError, match=message):
            load_pairs(PAIR_BENCHMARKS[name], tmp_path)
    for name, file, message in (
        ("mmrb2", "reasoning_response_only.json", "has responses without prompts"),
        ("multimodal_rewardbench", "all_data_release.json", "has rows without prompts"),
    ):
        (tmp_path / file).write_text("[]")
        with pytest.raises(UserError, match=message):
            load_pairs(PAIR_BENCHMARKS[name], tmp_path)
    for text, message in (("[]", "not a JSON object"), ('{"pairs": [1]}', "no list `pairs`"), ("{", "cut short")):
        (tmp_path / "reasoning.json").write_text(text)
        with pytest.raises(UserError, match=message):
            load_pairs(PAIR_BENCHMARKS["mmrb2"], tmp_path)
    (tmp_path / "test-00000-of-00001.parquet").write_text("x")
    with pytest.raises(UserError, match="is not a parquet file"):
        load_pairs(PAIR_BENCHMARKS["vl_rewardbench"], tmp_path)
    (tmp_path / "all_data.json").write_text(json.dumps([1]))
    with pytest.raises(UserError, match="does not hold JSON objects"):
        load_pairs(PAIR_BENCHMARKS["multimodal_rewardbench"], tmp_path)
    with pytest.raises(UserError, match="two pairs 'vstar_1'"):
        pairs_of("mmrb2", tmp_path, {}, {})
    with pytest.raises(UserError, match="has no pairs"):
        pairs_of("multimodal_rewardbench", tmp_path)


# --- the official rules


def counted(name: str, *of_pairs: tuple[str, list[Preference]]) -> dict[str, Any]:
    pairs = [Pair(str(n), str(n), "?", (), (("a",), ("b",)), 0, group) for n, (group, _) in enumerate(of_pairs)]
    return measured(PAIR_BENCHMARKS[name], pairs, [preferences for _, preferences in of_pairs])


def test_in_mmrb2_every_answer_counts() -> None:
    """(forward right + reverse right) / answers, as in compute_accuracy.py: 3 of 5, and not the mean of the pairs."""
    found = counted("mmrb2", ("blink", [1, 0]), ("blink", [1, None]), ("vstar", [1, 0]), ("vstar", [None, None]))
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["by_group"]["blink"] == {"pairs": 2, "accuracy": pytest.approx(2 / 3)}
    assert found["macro_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_in_vl_rewardbench_the_majority_counts() -> None:
    """As in cal.py: with votes of three, 2 to 1 is right; a pair with an unread answer is in no denominator."""
    found = counted(
        "vl_rewardbench", ("reasoning", [1, 1, 0]), ("reasoning", [0, 1, 0]), ("reasoning", [1, 1, None]),
        ("general", [1, 1, 1]), ("general", [0.5]), ("hallucination", [0, 0, 0]),
    )  # fmt: skip
    assert {name: row["accuracy"] for name, row in found["by_group"].items()} == {
        "reasoning": 0.5, "general": 0.75, "hallucination": 0,
    }  # fmt: skip
    assert found["accuracy"] == pytest.approx(2.5 / 5)
    assert found["macro_accuracy"] == pytest.approx((0.5 + 0.75 + 0) / 3)
    assert counted("vl_rewardbench", ("general", [1, 0]))["accuracy"] == 0.5


def test_in_multimodal_rewardbench_a_coin_stands_for_no_result() -> None:
    found = counted("multimodal_rewardbench", ("vqa", [1]), ("vqa", [None]), ("safety/bias", [0]), ("vqa", [0.5]))
    assert found["accuracy"] == pytest.approx((1 + 0.5 + 0 + 0.5) / 4)
    assert found["by_group"]["vqa"]["accuracy"] == pytest.approx(2 / 3)


def test_nothing_that_counts_has_no_accuracy() -> None:
    assert counted("mmrb2", ("vstar", [None])) == {"by_group": {}}
