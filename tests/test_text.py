"""Steps, answers and records: nothing lost, nothing guessed, nothing raised."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlprm.answers import extract_answer, is_correct
from vlprm.images import open_image
from vlprm.schema import Region, Solution, Step, from_json, to_json
from vlprm.steps import join_steps, parse_step, split_steps, step_end


@given(
    st.lists(
        st.sampled_from(
            [
                "[answer] 4",
                "[perception] x",
                "\n\n",
                "\n",
                " ",
                "a\nb",
                "[zoom] {}",
                "",
                "\r\n",
                "**[Answer]:**",
                "5",
                "\t",
            ]
        )
    ).map("".join)
)
def test_no_character_is_lost(text: str) -> None:
    steps = split_steps(text)
    assert join_steps(steps) == text
    if text.strip():
        assert all(step.text.strip() for step in steps)
        assert split_steps(join_steps(steps)) == steps


@pytest.mark.parametrize("tags", [("", ""), ("[reasoning] ", "[answer] ")])
@pytest.mark.parametrize(
    "blank", ["\n\n", "\r\n\r\n", "\n \n", "\n\t\n", "\n\r\n", "\r\n \r\n", "\n\u3000\n", "\n \t\xa0\n", " \n \n"]
)
def test_a_blank_line_parts_steps_in_any_spelling(blank: str, tags: tuple[str, str]) -> None:
    """Also while a policy writes: the first step ends where it ends in the whole text."""
    first, second = f"{tags[0]}a", f"{tags[1]}b"
    steps = split_steps(first + blank + second)
    assert [step.text.strip() for step in steps] == [first, second]
    assert join_steps(steps) == first + blank + second
    end = step_end(first + blank + second[:1])
    assert end is not None
    assert (first + blank)[:end].strip() == first
    assert step_end(first + blank[:1]) is None


@pytest.mark.parametrize("text", ["\n \na", "a\n \n", "[answer]\n \n5", "a\n \n \n", "a\n\n \n\n"])
def test_a_blank_line_beside_nothing_parts_no_step(text: str) -> None:
    (step,) = split_steps(text)
    assert join_steps([step]) == text


def test_kinds_come_from_tags() -> None:
    kinds = [s.kind for s in split_steps("[perception] a\n\n[reasoning] b\n\nno tag\n\n[other] c\n\n[answer] d")]
    assert kinds == ["perception", "reasoning", "other", "other", "answer"]


@pytest.mark.parametrize(
    ("text", "answer_type", "expected"),
    [
        ("[answer] 7", "integer", "7"),
        ("[answer] 1,024.", "integer", "1024"),
        ("[answer] -0", "integer", "0"),
        ("[answer] seven", "integer", "7"),
        ("[answer] 7 apples", "integer", "7"),
        ("[answer] " + "9" * 50, "integer", None),
        ("[answer] Dark  Red.", "word", "dark red"),
        ("[answer]", "word", None),
        ("[answer] (b)", "choice", "B"),
        ("[answer] AB", "choice", None),
        ("[reasoning] 7", "integer", None),
    ],
)
def test_answers_by_type(text: str, answer_type: str, expected: str | None) -> None:
    assert extract_answer([parse_step("[reasoning] x"), parse_step(text)], answer_type) == expected  # type: ignore[arg-type]


def test_no_result_is_not_wrong() -> None:
    assert is_correct("7", "7", "integer") is True
    assert is_correct("8", "7", "integer") is False
    assert is_correct(None, "7", "integer") is None
    assert extract_answer([], "word") is None
    with pytest.raises(ValueError, match="gold answer 'several' is not of type integer"):
        is_correct("7", "several", "integer")


def test_records_carry_their_schema() -> None:
    solution = Solution("p", (Step("zoom", "[zoom] {}", Region(0, 0, 1.5, 2)),), None, "length", 7)
    record = json.loads(json.dumps(to_json(solution)))
    assert from_json(Solution, record) == solution
    with pytest.raises(ValueError, match="record has schema 0"):
        from_json(Solution, {**record, "schema": 0})
    with pytest.raises(ValueError, match="not a Solution record"):
        from_json(Solution, {**record, "tokens": "many"})
    with pytest.raises(ValueError, match="x0 < x1"):
        Region(3, 0, 1, 1)
    with pytest.raises(ValueError, match="`image` must be an index from 0"):
        Region(0, 0, 1, 1, -2)


def test_images_are_opened_safely() -> None:
    with pytest.raises(ValueError, match="the chart cannot be read"):
        open_image(b"\x89PNG\r\n\x1a\n half a file", "the chart")
