"""Benchmarks of the field's tables, on hand-made rows of the published layouts: items, prompts, rules, scores."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Image, Value

from eval.score import ScoreConfig, score
from vlprm.benchmarks import BENCHMARKS, dynamath, hr_bench, logicvista, olympiadbench, wemath
from vlprm.benchmarks.benchmark import Item, Output, Reading, as_problem, items_from_hub, load_items
from vlprm.errors import ProblemError, UserError
from vlprm.images import open_image
from vlprm.tasks.figure import FAMILY

DRAWN = FAMILY.problem("train", 0).images[0]
MATHVERSE = {
    "sample_index": "4", "problem_index": "1", "problem_version": "Text Lite", "image": "images_1/a.png",
    "question": "DE is parallel to BC. The angle CED is ()\nChoices:\nA:40°\nB:60°\nC:120°\nD:140°", "answer": "D",
    "question_type": "multi-choice", "metadata": {"subject": "Plane Geometry", "subfield": "Angle"},
    "query_wo": "Please directly answer.", "query_cot": "Please first conduct reasoning.",
}  # fmt: skip
DYNAMATH = {
    "id": "1", "question": "What is the period?", "image": "a.png", "answer": "2.0944", "answer_type": "float",
    "subject": "analytic geometry", "level": "high school",
}  # fmt: skip
WEMATH = {
    "ID": "2steps_1", "key": "2steps_1", "question": "OA = ( ) m", "option": "A. 300, 400;B. 400, 300; E. None",
    "answer": "A", "image_path": "2steps/image/1-1.png", "knowledge concept": "Length Units",
}  # fmt: skip
LOGICVISTA = {
    "imagename": "v1_1.png", "question": "Which choices (A-D) are green?", "answer": "A, C", "skill": ["inductive"],
    "broad_capability": ["diagram"],
}  # fmt: skip
OLYMPIAD = {
    "id": 2231, "subfield": "Geometry", "context": None, "question": "Find C in <image_1>.", "image_1": "a.png",
    "final_answer": ["$\\frac{1}{2}$"], "is_multiple_answer": False, "unit": None, "answer_type": "Numerical",
    "error": None,
}  # fmt: skip
MM_K12 = {"id": "17", "question": "How long is AB?", "answer": "\\sqrt{3}", "image_path": "a.png"}
VSTAR = {
    "question_id": 0, "image": "direct_attributes/a.jpg", "category": "direct_attributes", "label": "B",
    "text": "What is the glove made of?\n(A) rubber\n(B) cotton\n"
    "Answer with the option's letter from the given choices directly.",
}  # fmt: skip
HR_BENCH = {
    "index": 3, "question": "Which color?", "A": "Red", "B": "Blue", "C": "Green", "D": "White", "answer": "B",
    "category": "single", "cycle_category": "cycle_0", "image": base64.b64encode(DRAWN).decode(),
}  # fmt: skip
FILES = {
    "mathverse": ("testmini.json", MATHVERSE), "dynamath": ("sample_variant2.json", {"1": DYNAMATH}),
    "wemath": ("testmini.json", WEMATH), "logicvista": ("dataset.json", {"v1_1": LOGICVISTA}),
    "olympiadbench": ("OE_MM_maths_en_COMP.json", OLYMPIAD), "mm_k12": ("test.json", MM_K12),
    "vstar": ("test_questions.jsonl", VSTAR), "hr_bench": ("hr_bench_4k.tsv", HR_BENCH),
}  # fmt: skip


def written(name: str, folder: Path, *rows: Any) -> Path:
    """A folder with the rows as the benchmark publishes them."""
    file = folder / FILES[name][0]
    if file.suffix == ".tsv":
        file.write_text("\n".join(["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]) + "\n")
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        file.write_text(json.dumps(rows[0] if next(iter(rows[0])) in ("1", "v1_1") else list(rows), indent=1))
    return folder


def items_of(name: str, folder: Path, *rows: Any, subset: str = "all") -> dict[str, Item]:
    return load_items(BENCHMARKS[name], written(name, folder, *(rows or (FILES[name][1],))), subset)


def rule(name: str, item: Item, text: str, **saved: Any) -> Reading:
    return BENCHMARKS[name].rules["official"](item, Output(item.id, text, saved))


@pytest.mark.parametrize(
    ("name", "item_id", "options", "right", "wrong"),
    [
        ("mathverse", "4", ("40°", "60°", "120°", "140°"), "So the answer is D.", "The answer is (A) 40°"),
        ("dynamath", "1/2", (), '{"solution": "...", "short answer": "2.095"}', '{"short answer": "2.097"}'),
        ("wemath", "2steps_1/2steps_1", (), "<Thought process>: <<B>> <Answer>: <<A>>", "<Answer>: <<B>>"),
        ("logicvista", "v1_1", (), "The answer is A, C.", "The answer is A."),
        ("olympiadbench", "OE_MM_maths_en_COMP/2231", (), "So the final answer is \\boxed{0.5}.", "\\boxed{0.6}"),
        ("mm_k12", "17", (), "The answer is $\\sqrt{3}$.", "The answer is 3."),
        ("vstar", "0", ("rubber", "cotton"), "(B) cotton", "A"),
        ("hr_bench", "3", ("Red", "Blue", "Green", "White"), "It is blue.", "(A) Red"),
    ],
)
def test_published_rows_are_items_that_can_be_asked_and_scored(
    name: str, item_id: str, options: tuple[str, ...], right: str, wrong: str, tmp_path: Path
) -> None:
    (item,) = items_of(name, tmp_path).values()
    assert item.id == item_id
    assert not options or item.options == options
    assert [rule(name, item, text).correct for text in (right, wrong, "")] == [True, False, False]
    assert rule(name, item, "").answer is None
    if name != "hr_bench":  # its rows hold the image
        with pytest.raises(ProblemError, match="there is no image"):
            as_problem(BENCHMARKS[name], item, tmp_path)
        path = tmp_path / str(item.images[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(DRAWN)
    for style in BENCHMARKS[name].prompts:
        problem = as_problem(BENCHMARKS[name], item, tmp_path, style)
        assert open_image(problem.images[0]).width > 0
        assert style != "steps" or all(option in problem.question for option in item.options)


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("mathverse", MATHVERSE | {"problem_version": "Text Medium"}, "has the version 'Text Medium'; MathVerse has"),
        ("dynamath", {"1": DYNAMATH | {"answer_type": "tuple"}}, "the answer type 'tuple' is none of float"),
        ("wemath", WEMATH | {"key": "4steps_1"}, "has the key '4steps_1'"),
        ("olympiadbench", OLYMPIAD | {"final_answer": None}, "has no final_answer; leave proofs out"),
        ("vstar", VSTAR | {"category": "counting"}, "has the category 'counting'"),
        ("vstar", VSTAR | {"label": "C"}, "'C' is not a letter of its 2 options"),
        ("hr_bench", HR_BENCH | {"category": "triple"}, "has the category 'triple'"),
        ("hr_bench", HR_BENCH | {"image": "AAA"}, "neither a file name nor base64"),
    ],
)
def test_rows_of_another_version_are_refused(name: str, row: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        items_of(name, tmp_path, row)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_without_rows_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no items of {name}"):
        load_items(BENCHMARKS[name], tmp_path)


def test_mathverse_versions_are_subsets(tmp_path: Path) -> None:
    seen = MATHVERSE | {"sample_index": "5", "problem_version": "Vision Only", "question": ""}
    (item,) = items_of("mathverse", tmp_path, MATHVERSE, seen, subset="vision_only").values()
    assert (item.id, item.options) == ("5", ())
    assert "question in the image" in BENCHMARKS["mathverse"].prompts["steps"](item)
    assert list(items_of("mathverse", tmp_path, MATHVERSE, seen)) == ["4", "5"]
    text = MATHVERSE | {"problem_version": "Text Only", "image": ""}
    (tmp_path / "testmini_text_only.json").write_text(json.dumps([text]))
    (alone,) = load_items(BENCHMARKS["mathverse"], tmp_path, "text_only").values()
    with pytest.raises(ProblemError, match="has no images"):
        as_problem(BENCHMARKS["mathverse"], alone, tmp_path)


def test_a_stored_verdict_replaces_the_reading(tmp_path: Path) -> None:
    (item,) = items_of("mathverse", tmp_path).values()
    assert rule("mathverse", item, "I would say the last one", judgement=1).correct
    assert not rule("mathverse", item, "The answer is D", judgement="0").correct
    with pytest.raises(UserError, match="judgement of output 4 is 'yes', not 0 or 1"):
        rule("mathverse", item, "The answer is D", judgement="yes")


def scored(name: str, folder: Path, *outputs: dict[str, Any]) -> dict[str, Any]:
    file = folder / "outputs.jsonl"
    file.write_text("".join(json.dumps(output) + "\n" for output in outputs))
    return score(ScoreConfig(name, file, folder))


def test_dynamath_worst_case_needs_every_variant(tmp_path: Path) -> None:
    for variant in (1, 2):
        rows = {"1": DYNAMATH, "2": DYNAMATH | {"id": "2", "answer": "May", "answer_type": "text"}}
        (tmp_path / f"sample_variant{variant}.json").write_text(json.dumps(rows))
    said = {"1/1": "2.094", "1/2": "2.094", "2/1": "The answer is May.", "2/2": "The answer is June."}
    result = scored("dynamath", tmp_path, *({"id": i, "response": text} for i, text in said.items()))
    assert result["scores"] == {"average": 0.75, "worst_case": 0.5, "seeds": 2}
    assert dynamath.parsed("float", "2π rad") == str(2 * 3.141592653589793)
    assert [dynamath.parsed("choice", said) for said in ("b", "(D)", "A or B")] == ["B", "D", None]


def test_wemath_four_ways(tmp_path: Path) -> None:
    """Four problems of two parts: nothing known, a part and the whole, parts without the whole, everything."""
    outcomes = {1: "000", 2: "101", 3: "110", 4: "111", 5: "001"}
    parts = ("2steps_1", "2steps_2", "2steps_multi")
    rows = [WEMATH | {"ID": f"2steps_{n}", "key": key} for n in outcomes for key in parts]
    written("wemath", tmp_path, *rows)
    answers = [
        {"ID": f"2steps_{n}", "key": key, "response": f"Answer: {'A' if outcome == '1' else 'B'}"}
        for n, right in outcomes.items()
        for key, outcome in zip(parts, right, strict=True)
    ]
    scores = scored("wemath", tmp_path, *answers)["scores"]
    assert [scores[f"{kind}_strict"] for kind in ("IK", "IG", "CM")] == [0.2, 0.2, 0.2]
    assert scores["RM_strict"] == pytest.approx(2 / 3)
    assert scores["score_strict"] == pytest.approx(1 - 0.1 - 0.4 - 0.2)
    assert (scores["CM_loose"], scores["RM_loose"]) == (0.4, pytest.approx(1 / 3))
    assert scores["score_loose"] == pytest.approx(1 - 0.1 - 0.2 - 0.2)
    assert wemath.scores(load_items(BENCHMARKS["wemath"], written("wemath", tmp_path, rows[0])), set()) == {}


def test_wemath_options_that_cannot_be_parted_stay_in_the_question(tmp_path: Path) -> None:
    odd = WEMATH | {"option": "A. The angle ;C.; B. None"}
    (item,) = items_of("wemath", tmp_path, odd).values()
    assert item.options == ()
    assert item.question.endswith(odd["option"])


def test_hr_bench_orders(tmp_path: Path) -> None:
    """One question in two orders, right in the first only, and another one, right in both."""
    turned = HR_BENCH | {"A": "Blue", "B": "Red", "answer": "A", "cycle_category": "cycle_1", "index": 4}
    other = {"question": "Which shape?", "category": "cross"}
    rows = [HR_BENCH, turned, HR_BENCH | other | {"index": 5}, turned | other | {"index": 6}]
    written("hr_bench", tmp_path, *rows)
    said = {"3": "B", "4": "B", "5": "B", "6": "Blue"}
    result = scored("hr_bench", tmp_path, *({"id": i, "response": text} for i, text in said.items()))
    assert result["scores"] == {"average": 0.75, "single": 0.5, "cross": 1.0, "all_orders": 0.5}
    assert result["by"]["order"]["cycle_1"]["accuracy"] == 0.5


def test_hr_bench_keeps_two_photographs_with_the_same_question_apart() -> None:
    items = [BENCHMARKS["hr_bench"].item(HR_BENCH | {"index": n}) for n in (1, 2)]
    assert hr_bench.scores({item.id: item for item in items}, {"1"})["all_orders"] == 0.5


@pytest.mark.parametrize(
    ("response", "letters"),
    [
        ("A, C", "AC"), ("(B)", "B"), ("The answer is B and D.", "BD"), ("Option C is right", "C"), ("", None),
        ("The correct answer: 3", "3"), ("A dog barks", None), ("the choices are not clear", None),
    ],
)  # fmt: skip
def test_logicvista_letters(response: str, letters: str | None) -> None:
    assert logicvista.letters(response) == letters


def test_logicvista_takes_the_stored_list(tmp_path: Path) -> None:
    (item,) = items_of("logicvista", tmp_path).values()
    assert rule("logicvista", item, "the first and the third", extracted=["c", "a"]).correct


@pytest.mark.parametrize(
    ("said", "gold", "error", "equal"),
    [
        ("x=1", "1", None, True), ("x=2", "x=1", None, False), ("2n+1", "1+2n", None, True), ("3,1", "1,3", None, True),
        ("1", "1,3", None, False), ("\\pm 2", "2,-2", None, True), ("3.15", "3.1", "0.1", True),
        ("50", "0.5", None, True), ("2n+1", "a_{n}=2n+1", None, True), ("0.6054", "\\cos(0.92)", "1e-3", True),
        ("(\\frac{2}{4},3)", "(\\frac{1}{2},3)", None, True), ("[1,2]", "(1,2]", None, False),
        ("3.15", "3.1", None, False), ("(1,2]", "(1,2]", None, True), ("2.1,3", "2,3", "0.1,", True),
        ("\\mathrm{ABC}", "ABC", None, True), ("9**9**9**9", "3", None, False),
    ],
)  # fmt: skip
def test_olympiadbench_compares(said: str, gold: str, error: str | None, equal: bool, tmp_path: Path) -> None:
    (item,) = items_of("olympiadbench", tmp_path, OLYMPIAD | {"final_answer": [gold], "error": error}).values()
    assert rule("olympiadbench", item, f"So the final answer is \\boxed{{{said}}}.").correct is equal


def test_olympiadbench_boxes() -> None:
    assert olympiadbench.boxes("\\boxed{1} and \\boxed{\\frac{1}{2}}") == "1,\\frac{1}{2}"
    assert olympiadbench.boxes("first $2$\nso $x=3$") == "x=3"
    assert olympiadbench.boxes("\\boxed{1") == "\\boxed{1"


def test_hub_splits_are_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "id": "1", "question": "Is it? Choices: (A) yes (B) no", "ground_truth": "B", "answer_type": "multiple choice",
        "subject": "statistics", "knowledge_level": "high school",
    }  # fmt: skip
    features = Features({**{name: Value("string") for name in row}, "decoded_image": Image()})
    stored = Dataset.from_list([row | {"decoded_image": {"bytes": DRAWN, "path": None}}], features=features)
    monkeypatch.setattr("datasets.load_dataset", lambda path, config, split: stored)
    items = items_from_hub(BENCHMARKS["dynamath"])
    assert list(items) == [f"1/{variant}" for variant in range(1, 11)]
    first = items["1/1"]
    assert (first.question, first.options, first.images) == ("Is it?", ("yes", "no"), (DRAWN,))
