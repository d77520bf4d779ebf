"""Broken output files give one clear error, or a count. Items after the damage keep their own scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.score import ScoreConfig, main, score
from vlprm.benchmarks import BENCHMARKS
from vlprm.benchmarks.outputs import final_text, read_outputs
from vlprm.schema import Solution, Step, to_json

ROWS = [
    {"id": str(i), "question": "How many?\n<image1>", "options": [], "answer": str(i), "level": 1,
     "subject": "counting", "image": f"images/{i}.png"}
    for i in range(1, 5)
]  # fmt: skip
RIGHT = [{"id": str(i), "response": f"The answer is {i}."} for i in range(1, 5)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test.jsonl").write_text(lines(ROWS))
    return tmp_path


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def scored(folder: Path, text: str | bytes, **flags: Any) -> dict[str, Any]:
    file = folder / "outputs.jsonl"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return score(ScoreConfig("mathvision", file, folder, **flags))


def test_layouts_are_read_alike(folder: Path) -> None:
    solution = Solution(
        "1", (Step("reasoning", "[reasoning] 1 + 0 = 1"), Step("answer", "[answer] 1")), "1", "answer", 9
    )
    stored = {"key": "mathvision/1/pool", "problem": "1", "candidates": [{"solution": to_json(solution)}, {}]}
    layouts = [
        lines(RIGHT),
        json.dumps({record["id"]: record for record in RIGHT}),
        json.dumps({record["id"]: record["response"] for record in RIGHT}),
        json.dumps({"counting": RIGHT[:2], "logic": RIGHT[2:]}),
        json.dumps(RIGHT),
        lines([{**stored, "method": "pool"}, {**stored, "method": "dvts"}, *RIGHT[1:]]),
        lines([{"id": 1, "response": 1}, *RIGHT[1:]]),
        lines(RIGHT).encode("utf-16"),
        "\ufeff" + lines(RIGHT),
    ]
    for text in layouts:
        result = scored(folder, text)
        assert (result["correct"], result["total"], result["malformed"]) == (4, 4, 0), text


def test_the_answer_step_is_read_alone() -> None:
    assert final_text("[perception] a 3\n\n[reasoning] B = 4\n\n[answer] (C)") == "(C)"
    assert final_text("[answer] 3\n\nBut wait.") == "[answer] 3\n\nBut wait."


def test_what_is_missing_counts_and_is_not_right(folder: Path) -> None:
    result = scored(folder, lines([RIGHT[3], RIGHT[0]]))
    assert (result["correct"], result["total"], result["missing"], result["accuracy"]) == (2, 4, 2, 0.5)
    assert result["ids"]["missing"] == ["2", "3"]
    assert result["by"]["subject"]["counting"] == {"correct": 2, "total": 4, "accuracy": 0.5}


def test_half_a_last_line_is_left_out(folder: Path) -> None:
    result = scored(folder, lines(RIGHT)[:-20])
    assert (result["correct"], result["missing"], result["torn_last_line"]) == (3, 1, True)


def test_what_is_no_text_is_no_answer(folder: Path) -> None:
    others = [{"id": "2", "response": None}, {"id": "3", "response": ["3"]}, {"id": "4"}]
    result = scored(folder, lines([RIGHT[0], *others]))
    assert (result["correct"], result["no_answer"], result["malformed"], result["parse_rate"]) == (1, 3, 3, 0.25)


def test_unknown_ids_are_counted_and_change_nothing(folder: Path) -> None:
    result = scored(folder, lines([{"id": "99", "response": "99"}, *RIGHT]))
    assert (result["correct"], result["total"], result["ids"]["unknown"]) == (4, 4, ["99"])


REFUSED = {
    "none of the 1 ids": lines([{"id": "99", "response": "99"}]),
    "1 ids have several outputs, such as '2'": lines([*RIGHT, RIGHT[1]]),
    "line 2 is not JSON": lines(RIGHT[:1]) + "{broken\n" + lines(RIGHT[1:]),
    "record 1 has no id": lines([{"response": "1"}]),
    "no record has a text in response": lines([{"id": "1", "text": "1"}]),
    "has no outputs": "",
    "line 1 is not JSON": "{broken",
    "line 5 is not JSON": lines(RIGHT) + "{broken\n",
    "not in UTF-8": lines(RIGHT).replace("answer", "réponse").encode("latin-1"),
    "is not a record": "[1, 2]",
    "not an object": "1\n2\n",
    "stores no verdict": lines(RIGHT),
}


@pytest.mark.parametrize("said", REFUSED)
def test_refused_in_one_sentence(said: str, folder: Path) -> None:
    rule = "as_published" if said == "stores no verdict" else "official"
    with pytest.raises(ValueError, match=said):
        scored(folder, REFUSED[said], rule=rule)


def test_names_that_are_not_there(folder: Path) -> None:
    (folder / "o.jsonl").write_text(lines(RIGHT))
    for change, said in (
        ({"benchmark": "mathvison"}, "unknown benchmark"), ({"rule": "best"}, "no rule 'best'; known: official"),
        ({"subset": "half"}, "no subset 'half'"), ({"outputs": folder / "none"}, "there is no file"),
        ({"data": folder / "none"}, "has no items of mathvision"),
    ):  # fmt: skip
        fields = {"benchmark": "mathvision", "outputs": folder / "o.jsonl", "data": folder, **change}
        with pytest.raises(ValueError, match=said):
            score(ScoreConfig(**fields))  # type: ignore[arg-type]


def test_pathological_texts_are_scored_in_time(folder: Path) -> None:
    texts = ["{" * 100_000, "\\boxed{" * 30_000, "10**10**10", "oxed{" + "OXED{" * 20_000]
    outputs = [{"id": str(i), "response": text} for i, text in enumerate(texts, 1)]
    assert scored(folder, lines(outputs))["correct"] == 0


def test_what_the_command_prints_and_writes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "o.jsonl").write_text(lines(RIGHT))
    main(ScoreConfig("mathvision", folder / "o.jsonl", folder, json=folder / "out/result.json"))
    printed, written = json.loads(capsys.readouterr().out), json.loads((folder / "out/result.json").read_text())
    assert printed == {name: value for name, value in written.items() if name != "ids"}
    assert {"correct", "total", "accuracy", "parse_rate", "random_fallbacks", "by"} <= set(printed)


def test_records_that_carry_their_items_count_by_the_part_that_they_are_of(tmp_path: Path) -> None:
    row = {"question": "?", "options": ["3", "1"], "answer": 3, "_category": "venn"}
    file = tmp_path / "o.jsonl"
    file.write_text(lines([{**row, "_line": 0, "raw_output": "(A)"}, {**row, "_line": 60, "raw_output": "(A)"}]))
    whole = score(ScoreConfig("puzzlevqa", file, tmp_path))
    half = score(ScoreConfig("puzzlevqa", file, tmp_path, subset="first_50"))
    assert [(r["correct"], r["total"], r["missing"], r["unknown"]) for r in (whole, half)] == [
        (2, 100, 98, 0),
        (1, 50, 49, 1),
    ]
    # A record without a complete item is not scored by another item's answer.
    file.write_text(
        lines([{**row, "_line": 0, "raw_output": "(A)"}, {"_category": "venn", "_line": 1, "raw_output": "(A)"}])
    )
    broken = score(ScoreConfig("puzzlevqa", file, tmp_path))
    assert [broken[name] for name in ("correct", "total", "missing", "unknown")] == [1, 100, 99, 1]
    assert whole["by"]["concept"]["Numbers & Shapes"] == {"correct": 2, "total": 100, "accuracy": 0.02}
    (tmp_path / "items.jsonl").write_text(lines([{**row, "_line": 0, "answer": 1}]))
    with pytest.raises(ValueError, match=r"venn_0000: .* has the answer"):
        score(ScoreConfig("puzzlevqa", file, tmp_path))


def test_a_record_keeps_its_other_fields(tmp_path: Path) -> None:
    (tmp_path / "o.json").write_text(json.dumps({"7": {"pid": "7", "response": "", "extraction": "A"}}))
    assert read_outputs(tmp_path / "o.json", BENCHMARKS["mathvista"]).by_id["7"].saved["extraction"] == "A"
