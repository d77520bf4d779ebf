"""Split problems into training and held-out ones that share no image."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence

from train.reward.trees import Tree
from vlprm.errors import UserError
from vlprm.images import content_hash, open_image
from vlprm.schema import Problem


def held_out(trees: Sequence[Tree], share: float, seed: int) -> tuple[list[Tree], list[Tree]]:
    """Training and held-out problems. Problems that share images stay together, so fewer than `share` may be held out,
    but at least one is, unless `share` is 0. UserError if one side would be empty."""
    shuffled = list(trees)
    random.Random(seed).shuffle(shuffled)
    if not share:
        return shuffled, []
    wanted = max(1, int(len(shuffled) * share))
    if len(shuffled) <= wanted:
        raise UserError(
            f"{len(shuffled)} problem(s) with {wanted} held out leave none to train on; add problems, or train on"
            " all of them with --held_out 0"
        )
    together: dict[int, list[int]] = defaultdict(list)
    for n, group in enumerate(groups([tree[0].problem for tree in shuffled])):
        together[group].append(n)
    if len(together) == 1:
        raise UserError(
            f"its {len(shuffled)} problems share their images (or, without images, their question), and held-out ones"
            " must not be seen in training; add problems with other images, or train on all of them with --held_out 0"
        )
    kept: set[int] = set()
    for members in together.values():
        if len(kept) + len(members) <= wanted:
            kept.update(members)
    if not kept:
        smallest = min(together.values(), key=len)
        kept.update(smallest)
    return [tree for n, tree in enumerate(shuffled) if n not in kept], [shuffled[n] for n in sorted(kept)]


def groups(problems: Sequence[Problem]) -> list[int]:
    """The group of each problem, as the index of its first member. Groups are connected components: problems are linked
    by equal images or, without images, by equal questions."""
    first: dict[str, int] = {}
    above = list(range(len(problems)))

    def top(n: int) -> int:
        while above[n] != n:
            above[n] = above[above[n]]
            n = above[n]
        return n

    pixels: dict[bytes, str] = {}
    for n, problem in enumerate(problems):
        for data in problem.images:
            if data not in pixels:
                pixels[data] = _pixel_hash(data)
        for shown in [pixels[data] for data in problem.images] or [" ".join(problem.question.split())]:
            a, b = sorted((top(n), top(first.setdefault(shown, n))))
            above[b] = a
    return [top(n) for n in range(len(problems))]


def _pixel_hash(data: bytes) -> str:
    """Hash of an image's pixels, independent of the file format."""
    image = open_image(data, f"image {content_hash(data)}")
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
