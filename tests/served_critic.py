"""A served critic that knows the answers: of each step it writes that it is right, that the answer should be in its
place, that a false answer should, and that a false step should."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tests.stand_in import Answer, Body, StandIn, completion
from vlprm.model.checkpoint_config import load_checkpoint_config
from vlprm.policy.critique import critique_of, critique_text
from vlprm.schema import Problem
from vlprm.steps import parse_step

FALSE, GOES_ON = "[answer] none of these", "[reasoning] 9 + 9 = 9"


def serve_critic(server: StandIn, backbone: Path, folder: Path, problems: Iterable[Problem]) -> str:
    """Lets the server answer as this critic about these problems, whose questions differ: with all of these texts where
    several are asked for, and otherwise with one after the other. Gives the value of a flag for the critic, whose
    checkpoint is made in `folder`."""
    shutil.copytree(backbone, folder)
    declared = replace(load_checkpoint_config(folder), provenance={"critiques": True})
    declared.save(folder)
    answers = {problem.question: f"[answer] {problem.answer}" for problem in problems}
    turns = itertools.count()

    def reply(body: Body) -> Answer:
        sent, n = json.dumps(body["messages"]), body.get("n", 1)
        answer = next((answer for question, answer in answers.items() if json.dumps(question) in sent), FALSE)
        corrections = (None, *map(parse_step, (answer, FALSE, GOES_ON)))
        texts = [critique_text(critique_of(parse_step(FALSE), None, c), declared.critiques) for c in corrections]
        first = next(turns) if n == 1 else 0
        return completion(*(texts[(first + i) % len(texts)] for i in range(n)))

    server.reply = reply
    served = {"checkpoint": str(folder), "server": {"base_urls": [server.url], "model": "policy"}}
    return json.dumps(served)
