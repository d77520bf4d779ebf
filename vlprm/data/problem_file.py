"""Your own problems: a file `problems.jsonl` with one JSON object per line, and its images in the same folder.

    {"id": "7", "question": "How many cups?", "images": ["cups/7.png"], "answer": "3", "answer_type": "integer"}

Image paths are relative to the file's folder and must stay inside it. docs/answers.md lists the answer types. `choices`
are the texts of the options, for multiple choice: they are put after the question unless it lists them itself, and
`answer` is one of them, by letter or by text. `solution` is a reference solution for judges that use one. Further
fields go into the problem's `meta`, among them `question_type` for reports.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlprm.answers import CANONICAL
from vlprm.answers.options import Options
from vlprm.errors import ProblemError, UserError
from vlprm.images import LeadsOut, check_aspect, open_image, read_inside
from vlprm.prompts import with_options
from vlprm.runs.journal import placed_lines
from vlprm.schema import HALF_CHARACTER, AnswerType, Problem

FIELDS = {"id", "question", "images", "answer", "answer_type"}


class ProblemFile:
    """The problems of a file, by id, read from disk when asked for. UserError if the file is missing, empty or
    malformed."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"no problem file {path}; write one JSON object per line, as docs/synthesis.md shows")
        self.path, self.folder = path, path.parent.resolve()
        self._places: dict[str, int] = {}
        for number, (place, line) in enumerate(placed_lines(path), 1):
            if not line.strip():
                continue
            problem_id = _id(line, f"{path}, line {number}")
            if problem_id in self._places:
                raise UserError(
                    f"{path}, line {number}: the id {problem_id!r} occurs twice; give each problem its own id"
                )
            self._places[problem_id] = place
        if not self._places:
            raise UserError(f"{path} has no problems; write one JSON object per line")

    @property
    def ids(self) -> list[str]:
        """The ids of the problems, in the order of the file."""
        return list(self._places)

    def problem(self, problem_id: str) -> Problem:
        """The problem with this id. ProblemError if a field is missing or malformed or an image cannot be used."""
        with self.path.open("rb") as file:
            file.seek(self._places[problem_id])
            record = json.loads(file.readline())
        for name in ("question", "answer", "answer_type"):
            if record.get(name) in (None, "") or str(record[name]).isspace():
                raise ProblemError(f"no_{name}", f"{problem_id} has no value in its field {name!r}; fill it in")
            if not isinstance(record[name], str):
                raise ProblemError("not_text", f"{problem_id}: its {name} {record[name]!r} is not a string; quote it")
        if HALF_CHARACTER.search(json.dumps(record, ensure_ascii=False)):
            raise ProblemError("half_character", f"{problem_id} has half a character in its texts; remove it")
        answer_type = record["answer_type"]
        if answer_type not in CANONICAL:
            raise ProblemError(
                "answer_type", f"{problem_id}: unknown answer type {answer_type!r}; known: {', '.join(CANONICAL)}"
            )
        choices = record.get("choices") or []
        check_choices(choices, problem_id)
        gold = gold_answer(record["answer"], answer_type, choices, problem_id)
        names = record.get("images")
        if names and not isinstance(names, list):
            raise ProblemError(
                "no_list", f"{problem_id}: its images {names!r} are not a list; write [{json.dumps(names)}]"
            )
        if not names:
            raise ProblemError("no_image", f"{problem_id} has no images; list at least one")
        meta = {key: value for key, value in record.items() if key not in FIELDS}
        return Problem(
            problem_id,
            str(record.get("task", self.path.stem)),
            with_options(record["question"], choices),
            tuple(self._image(problem_id, name) for name in names),
            gold,
            answer_type,
            {"question_type": self.path.stem, **meta},
        )

    def _image(self, problem_id: str, name: Any) -> bytes:
        try:
            data = read_inside(self.folder, name)
        except LeadsOut as error:
            raise ProblemError("image_outside", f"{problem_id}: {error}") from error
        except OSError as error:
            raise ProblemError("image_missing", f"{problem_id}: there is no image {name!r}; copy it there") from error
        try:
            image = open_image(data, f"{problem_id}: {name}")
        except ValueError as error:
            raise ProblemError("image_unreadable", str(error)) from error
        check_aspect(image.size, f"{problem_id}: {name}")
        return data


def check_choices(choices: Any, name: str) -> None:
    """ProblemError if there are choices, but not 2 to 26 different texts."""
    if not isinstance(choices, (list, tuple)) or not all(isinstance(text, str) and text.strip() for text in choices):
        raise ProblemError("bad_choices", f"{name}: its choices must be a list of texts")
    if len(choices) == 1 or len(choices) > 26:
        raise ProblemError("bad_choices", f"{name}: give 2 to 26 choices, or none; the number is now {len(choices)}")
    if twice := next((text for text in choices if choices.count(text) > 1), None):
        raise ProblemError("bad_choices", f"{name}: two of its choices are {twice!r}; give each its own text")


def gold_answer(answer: str, answer_type: AnswerType, choices: Sequence[str], name: str) -> str:
    """The gold answer in the form in which solutions are compared with it. Among choices it is read like a solution's
    answer: `B`, `(B)` or the option's text. ProblemError if it is none of the choices, or not of its type."""
    if choices:
        gold = Options(choices, answer_type).whole(answer)
        if gold is None:
            texts = ", ".join(map(repr, choices))
            raise ProblemError(
                "bad_answer", f"{name}: the answer {answer!r} is none of its choices {texts}; give a letter or a text"
            )
        return gold
    if CANONICAL[answer_type](answer) is None:
        said = f"{name}: the answer {answer!r} is not of type {answer_type}; give another answer_type"
        raise ProblemError("bad_answer", said)
    return answer


def _id(line: bytes, place: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place} is not JSON; correct it") from error
    if not isinstance(record, dict) or record.get("id") in (None, ""):
        raise UserError(f"{place} has no id; add a unique string")
    if not isinstance(record["id"], str):
        raise UserError(f"{place}: the id {record['id']!r} is not a string; quote it")
    return record["id"]
