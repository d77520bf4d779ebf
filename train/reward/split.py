"""Split problems into training and held-out ones that share no image."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence

from vlprm.errors import UserError
from vlprm.images import content_hash, open_image
from vlprm.schema import Problem

Shown = Sequence[Sequence[int]]  # hashes of the images of each problem or, without images, of its question


def held_out(shown: Shown, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of training and of held-out problems. Problems that share images stay together, so fewer than `share` may
    be held out, but at least one is, unless `share` is 0. UserError if one side would be empty."""
    shuffled = [*range(len(shown))]
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
    for n, group in enumerate(groups([shown[n] for n in shuffled])):
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
    return [one for n, one in enumerate(shuffled) if n not in kept], [shuffled[n] for n in sorted(kept)]


def groups(shown: Shown) -> list[int]:
    """The group of each problem, as the index of its first member. Groups are connected components: problems are linked
    by equal images or, without images, by equal questions."""
    first: dict[int, int] = {}
    above = list(range(len(shown)))

    def top(n: int) -> int:
        while above[n] != n:
            above[n] = above[above[n]]
            n = above[n]
        return n

    for n, hashes in enumerate(shown):
        for one in hashes:
            a, b = sorted((top(n), top(first.setdefault(int(one), n))))
            above[b] = a
    return [top(n) for n in range(len(shown))]


def shown_by(problem: Problem) -> list[int]:
    """Hashes of the pixels of a problem's images, independent of the file format, or of its question."""
    if not problem.images:
        return [_hash(b"question", " ".join(problem.question.split()).encode(errors="surrogatepass"))]
    images = [open_image(data, f"image {content_hash(data)}") for data in problem.images]
    return [_hash(f"{image.size}".encode(), image.tobytes()) for image in images]


def worded(problem: Problem, shown: Sequence[int]) -> int:
    """Hash of what a problem shows (`shown_by`) and asks, apart from white space and case."""
    words = " ".join(problem.question.casefold().split()).encode(errors="surrogatepass")
    return _hash(repr(sorted(shown)).encode() if problem.images else b"", words)


def _hash(*parts: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(b"".join(parts), digest_size=8).digest(), "big", signed=True)
