"""What a published reward model fixes: its prompt, turns, step marks, the tokens or the head that give the score, and
how it sees images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vlprm.model.families import Family
from vlprm.schema import Aggregation

USER = "<|im_start|>user\n"
ASKED = "<|im_end|>\n<|im_start|>assistant\n"  # ends a user turn that asks for a verdict


@dataclass(frozen=True)
class PublishedText:
    """A text of a public file, which this project does not copy: the repository and its commit, the file, the name of
    the text in it, and the SHA-256 of the text in UTF-8."""

    repository: str
    commit: str
    file: str
    name: str
    sha256: str


@dataclass(frozen=True)
class Protocol:
    """How a published reward model scores all steps of a solution in one pass. A text template may name `{prompt}` (the
    published text), `{image}` (the image token of the processor), `{question}` and `{step}`; where a mark lies inside
    the text, also `{body}` (the step up to its mark) and `{rest}` (from the mark of the step before to this step).

    Args:
        hub: names of the released checkpoints on the Hub.
        prompt: the published text that the model was trained with.
        model_type: `model_type` of the checkpoint's config, in transformers' own classes.
        lead: text before the images.
        image: text of one image.
        first: text from there to the place where the first step is scored.
        later: text from there to the place where the next step is scored.
        verdicts: the two tokens that are compared there: correct, wrong; none for a linear head.
        mark: the token by which the public reader finds the places, if it looks for a token alone.
        before: text in a step before which its mark stands.
        marks: texts that a step or a question must not spell out, besides the control tokens of the tokenizer.
        images: least and largest number of images.
        pixels: least and largest number of pixels of an image; None: the processor resizes to tiles.
        rounded: images are first resized to multiples of the size of an image token, before the limits apply.
        tiles: settings of the image processor.
        aggregation: how its authors make the reward of a solution from those of its steps.
        family: settings of the backbone's family, if `vlprm.model.families` does not list it.
        code_of_its_own: why the released folder cannot be loaded as it is, and what to give instead.
        licence: licence of the weights, as their card states it.
    """

    hub: tuple[str, ...]
    prompt: PublishedText
    model_type: str
    lead: str
    image: str
    first: str
    later: str
    verdicts: tuple[str, str] | None
    marks: tuple[str, ...]
    images: tuple[int, int]
    aggregation: Aggregation
    licence: str
    mark: str = ""
    before: str = ""
    pixels: tuple[int, int] | None = None
    rounded: bool = False
    tiles: dict[str, Any] = field(default_factory=dict)
    family: Family | None = None
    code_of_its_own: str = ""


@dataclass(frozen=True)
class Verifier:
    """How a published model that lists wrong claims is asked, once for a whole response about one image.

    Args:
        hub: names of the released checkpoints on the Hub.
        system: the published system message.
        asked: the published user's turn, with `{question}` and `{response}`.
        mark: text before the question, in the place of the image.
        claims: answer -> the claims that it calls wrong, in the response's words; None: it cannot be read.
        max_tokens: limit of the answer.
        licence: licence of the weights or, if their card states none, of the code.
    """

    hub: tuple[str, ...]
    system: PublishedText
    asked: PublishedText
    mark: str
    claims: Callable[[str], list[str] | None]
    max_tokens: int
    licence: str
