"""The benchmarks: packaged items load, prompts are the authors', and odd answers are read as the authors read them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Image, Value, load_dataset

from tests.published_outputs import DATA, absent
from vlprm.benchmarks import BENCHMARKS, mathvision, mathvista, mmmu, mmmu_pro, puzzles
from vlprm.benchmarks.benchmark import Item, Output, as_problem, items_from_hub, load_items
from vlprm.errors import ProblemError
from vlprm.images import open_image, png
from vlprm.tasks.figure import FAMILY

PACKAGED = {
    "mmmu": ("images", 33), "mathvista": ("images", 197), "mathvision": ("images", 208), "puzzlevqa": ("all", 240),
    "algopuzzlevqa": ("all", 72),
}  # fmt: skip
SIZES = {
    ("mmmu", "all"): 900,
    ("mathvista", "testmini"): 1000,
    ("mathvision", "all"): 3040,
    ("mathvision", "testmini"): 304,
}


@absent
@pytest.mark.parametrize("name", PACKAGED)
def test_every_packaged_item_is_a_problem_in_each_style(name: str) -> None:
    subset, count = PACKAGED[name]
    benchmark, folder = BENCHMARKS[name], DATA / name
    items = load_items(benchmark, folder, subset)
    assert len(items) == count
    for item in items.values():
        official, steps = (as_problem(benchmark, item, folder, style) for style in ("official", "steps"))
        assert open_image(official.images[0]).width > 0
        assert item.question.strip() in official.question
        assert steps.question.startswith(item.question)
        assert all(option in steps.question for option in item.options)
        assert item.answer_type != "choice" or item.letters[str(official.answer)]
        # The gold answer, written as a model would write it, is right.
        assert benchmark.rules["official"](item, Output(item.id, said(item))).correct, item.id


def said(item: Item) -> str:
    return f"({item.answer})" if item.answer_type == "choice" else f"The answer is {item.answer}"


@absent
@pytest.mark.parametrize(("name", "subset"), SIZES)
def test_subsets_have_their_sizes(name: str, subset: str) -> None:
    assert len(load_items(BENCHMARKS[name], DATA / name, subset)) == SIZES[name, subset]


@absent
def test_prompts_are_the_published_ones() -> None:
    """They are equal character by character where the packaged data has them: MathVista's queries and PuzzleVQA's
    prompts."""
    for item in load_items(BENCHMARKS["mathvista"], DATA / "mathvista", "images").values():
        assert mathvista.official_prompt(item) == item.row["query"]
    for line in (DATA / "puzzlevqa/outputs/gpt4o_outputs_single.jsonl").read_text().splitlines():
        record = json.loads(line)
        item = BENCHMARKS["puzzlevqa"].item(record)
        assert record["prompt"].startswith(puzzles.official_prompt(item)), "a second call adds to it"


def test_rows_of_the_hub_become_the_same_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub's rows have decoded images, and lists as text. Here `load_dataset` reads a folder as it would read the
    Hub."""
    drawn = FAMILY.problem("train", 0).images[0]
    row = {
        "id": "validation_Music_3", "question": "In <image 1>, which?", "options": "['a', 'b']", "answer": "B",
        "question_type": "multiple-choice", "image_1": {"bytes": drawn, "path": None},
    }  # fmt: skip
    features = Features({name: Value("string") for name in row if name != "image_1"} | {"image_1": Image()})
    Dataset.from_list([row], features=features).to_parquet(tmp_path / "Music.parquet")

    def from_folder(path: str, config: str, split: str) -> Any:
        assert (path, split) == ("MMMU/MMMU", "validation")
        files = str(tmp_path / "Music.parquet")
        return load_dataset("parquet", data_files={split: files}, split=split).filter(lambda r: config in r["id"])

    monkeypatch.setattr("datasets.load_dataset", from_folder)
    (item,) = items_from_hub(BENCHMARKS["mmmu"]).values()
    problem = as_problem(BENCHMARKS["mmmu"], item, tmp_path)
    assert (problem.images, problem.answer, item.letters) == ((drawn,), "B", {"A": "a", "B": "b"})
    assert problem.question.endswith("(A) a\n(B) b\n\nAnswer with the option's letter from the given choices directly.")


# --- folders that are broken


@pytest.fixture
def row() -> dict[str, Any]:
    return {
        "id": "5", "question": "Which?", "options": ["A", "B"], "answer": "B", "level": 1, "subject": "logic",
        "image": "images/5.png",
    }  # fmt: skip


def loaded(folder: Path, *rows: dict[str, Any]) -> dict[str, Item]:
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_items(BENCHMARKS["mathvision"], folder)


def test_an_image_that_is_not_there_stops_its_item_alone(row: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/5.png").write_bytes(png(open_image(FAMILY.problem("train", 0).images[0])))
    (tmp_path / "images/6.png").write_bytes(b"cut")
    rows = [row | {"id": i, "image": f"images/{i}.png"} for i in ("5", "6", "7")]
    items = loaded(tmp_path, *rows, row | {"id": "8", "image": "../8.png"}, row | {"id": "9", "image": None})
    assert as_problem(BENCHMARKS["mathvision"], items["5"], tmp_path, "steps").answer == "B"
    for item_id, failure in {
        "6": "image_unreadable", "7": "image_missing", "8": "image_outside", "9": "no_image",
    }.items():  # fmt: skip
        with pytest.raises(ProblemError) as error:
            as_problem(BENCHMARKS["mathvision"], items[item_id], tmp_path)
        assert error.value.cause == failure


def test_rows_that_are_no_items_are_named(row: dict[str, Any], tmp_path: Path) -> None:
    for broken, said in (
        (row | {"answer": "C"}, "'C' is not a letter of its 2 options"),
        ({k: v for k, v in row.items() if k != "options"}, r"row 1 is not an item of mathvision \(KeyError"),
    ):
        with pytest.raises(ValueError, match=said):
            loaded(tmp_path, broken)
    with pytest.raises(ValueError, match="two items with the id '5'"):
        loaded(tmp_path, row, row)
    with pytest.raises(ValueError, match="no prompt style 'long'"):
        as_problem(BENCHMARKS["mathvision"], loaded(tmp_path, row)["5"], tmp_path, "long")


# --- odd answers, as the official rules read them


def item(options: list[str], gold: str, **row: Any) -> Item:
    return Item("x", "?", tuple(options), (gold,), gold, "choice" if options else "text", (), {}, row)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("So it is (B).", "b"), ("(D)\nbecause", "D"), ("(A) A\nbecause", "A"), ("The answer is 4/3.", "4/3"),
        ("it is 3.0.", "3.0"), ("\\boxed{2} or \\boxed{\\dfrac{1}{2}}", "\\frac{1}{2}"), ("1/2", "\\frac{1}{2}"),
        ("The answer is 7. I am sure", "7"), ("x = \\boxed{x=0.5}", "\\frac{1}{2}"), ("\\boxed{60^\\circ}", "60"),
        ("\\boxed{\\sqrt2}", "\\sqrt{2}"), ("the answer should be $12$ km", "12"), ("\\textbf{(A)}", "bfa"), ("", ""),
    ],
)  # fmt: skip
def test_mathvision_finds(response: str, answer: str) -> None:
    assert mathvision.extract(response).lower() == answer.lower()


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("1", "1.004", True), ("1", "1.006", False), ("\\frac{1}{3}", "1:3", True), ("60", "60%", False),
        ("5-2-3-4-1", "5-2-3-1-4", True), ("(1,2)", "(1,1+1)", True), ("(1,2)", "(1,2.001)", False), ("a", "A", True),
        ("6", "", False), ("x", "y", False),
    ],
)  # fmt: skip
def test_mathvision_compares(gold: str, answer: str, equal: bool) -> None:
    assert mathvision.is_equal(gold, answer) is equal


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("(A) or (B), so (A)", "A"), ("B", "B"), ("B.", "B"), ("I take B or C today", "C"), ("ABC", None), ("", None),
        ("the right answer must be the Apple tree, not a pear", "B"), ("pear tree", None),
        ("The pear, then an apple, is what I saw there", "A"),
    ],
)  # fmt: skip
def test_mmmu_chooses(response: str, letter: str | None) -> None:
    assert mmmu.letter_in(response, {"A": "apple", "B": "pear", "C": "plum"}) == letter


@pytest.mark.parametrize(
    ("gold", "response", "right"),
    [
        (["1,000"], "It is 1000.", True), (["1.06"], "so x = 1.064", True), (["C"], "it is right", False),
        (["paris", "lyon"], "The city is Lyon", True), (["3e5"], "about 3e5 m", True), (["7"], "17", False),
        (["5"], "the result is 5\nthus it is 6", True), (["nan"], "nan", False),
    ],
)  # fmt: skip
def test_mmmu_open_answers(gold: list[str], response: str, right: bool) -> None:
    assert mmmu.open_is_right(gold, mmmu.open_answers(response)) is right


def test_mmmu_reads_a_long_run_of_digits_once() -> None:
    started = time.process_time()
    assert mmmu.open_answers("1" * 50_000)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("A is wrong. Answer: C", "C"), ("Answer: $B$", "B"), ("Answer: A or B (A)", "A"), ("C. plum", "C"),
        ("A B. C", "C"), ("oneA and oneB", "A"),
    ],
)  # fmt: skip
def test_mmmu_pro_chooses(response: str, letter: str) -> None:
    assert mmmu_pro.letter_in(response, {"A": "apple", "B": "pear", "C": "plum"}) == letter


def test_mmmu_without_options_is_an_error_and_not_four_letters() -> None:
    asked = Item("x", "?", (), ("E",), "E", "choice", (), {}, {})
    with pytest.raises(ValueError, match="has no options in the folder or"):
        mmmu.official(asked, Output("x", "It is E."))
    assert mmmu.official(asked, Output("x", "E")).correct


@pytest.mark.parametrize(
    ("kind", "gold", "extraction", "official", "published"),
    [
        ("integer", "5", "5.0", "5", None), ("integer", "5", "five", None, None), ("integer", "5", "inf", None, None),
        ("float", "1.2", "1.20", "1.2", "1.2"), ("list", "[1, 2]", "[1,2]", "[1,2]", "[1,2]"), 
        ("float", "1.2", "", None, None),
    ],
)  # fmt: skip
def test_mathvista_free_form(
    kind: str, gold: str, extraction: str, official: str | None, published: str | None
) -> None:
    asked, output = item([], gold, answer_type=kind, precision=1.0), Output("x", "", {"extraction": extraction})
    readings = mathvista.official(asked, output), mathvista.as_published(asked, output)
    assert tuple(reading.answer for reading in readings) == (official, published)
    assert [reading.correct for reading in readings] == [official == gold, published == gold]


@pytest.mark.parametrize(
    ("extraction", "option"),
    [("(b) 12", "yes"), ("B", "yes"), ("b", "no"), ("yess", "yes"), ("D", "no"), ("(z)", "no"), ("none of it", "no")],
)
def test_mathvista_takes_the_letter_or_the_nearest_option(extraction: str, option: str) -> None:
    assert mathvista.nearest_option(["no", "yes"], extraction) == option


def test_mathvista_without_an_extraction_has_no_answer() -> None:
    asked = item(["no", "yes"], "no")
    assert mathvista.official(asked, Output("x", "", {"extraction": " "})).answer is None
    assert mathvista.official(asked, Output("x", "I think the answer is (A).")).correct


@pytest.mark.parametrize(
    ("response", "official", "later"),
    [
        ("(A) no, (B)", "large", False), ("Daniel", "small", False), ("(D)", "small", False), ("medium!", None, False),
        ("It is large.", None, True), ("B", "large", True),
    ],
)  # fmt: skip
def test_puzzles(response: str, official: str | None, later: bool) -> None:
    asked = item(["small", "large", "medium"], "large")
    assert puzzles.official(asked, Output("x", response)).answer == official
    assert puzzles.multiple_choice_2025(asked, Output("x", response)).correct is later


def test_puzzles_take_the_stored_prediction_of_the_second_call() -> None:
    asked = item(["small", "large"], "large")
    assert puzzles.official(asked, Output("x", "", {"pred": "large"})).correct
    assert puzzles.official(asked, Output("x", "", {"pred": "Cannot get_answer"})).answer is None


def test_puzzles_make_texts_of_numbers() -> None:
    made = BENCHMARKS["puzzlevqa"].item(
        {"image": "images/venn/venn_0007.png", "question": "?", "options": ["9", 3], "answer": 3}
    )
    assert (made.id, made.options, made.gold, made.answer) == ("venn_0007", ("9", "3"), ("3",), "B")
