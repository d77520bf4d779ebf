"""What a policy in this process has computed and may need again: keys and values of prefixes, and image features.

Keys and values are kept in blocks of `BLOCK` tokens. The key of a block is a hash of all ids and images up to its end,
so rows with a common prefix share its blocks, and a prefix is found whatever request it came from. Both caches drop
what has not been used for longest when they exceed their limits in bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from cachetools import LRUCache
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary
from transformers.cache_utils import DynamicLayer
from transformers.utils import ModelOutput

from vlprm.model.packing import PackedRow, joined_images

BLOCK = 16  # tokens
PREFIX_BYTES = 2 << 30
FEATURE_BYTES = 1 << 29
Images = Mapping[str, Tensor]


class Kept:
    """The kept values of one model. They are dropped when the model's weights change; a change through `.data` is not
    noticed."""

    def __init__(self) -> None:
        self.blocks: LRUCache[bytes, Tensor] = LRUCache(PREFIX_BYTES, getsizeof=lambda block: block.nbytes)
        self.features: LRUCache[bytes, Features] = LRUCache(FEATURE_BYTES, getsizeof=lambda one: one.nbytes)
        self._weights: list[tuple[int, int]] = []
        self._digests: Any = WeakIdKeyDictionary()

    def drop_if_changed(self, model: Any) -> None:
        """Drop everything if the weights are others than at the last call."""
        weights = [(parameter.data_ptr(), parameter._version) for parameter in model.parameters()]
        if weights != self._weights:
            self.blocks.clear()
            self.features.clear()
            self._weights = weights

    def digest(self, images: Images) -> bytes:
        """A hash of the tensors of images, computed once for each tensor."""
        return b"".join(self._digest_of(images[name]) for name in sorted(images))

    def _digest_of(self, tensor: Tensor) -> bytes:
        if tensor not in self._digests:
            shape = str((tensor.dtype, tuple(tensor.shape))).encode()
            self._digests[tensor] = hashlib.sha256(shape + tensor.cpu().contiguous().numpy().tobytes()).digest()
        digest: bytes = self._digests[tensor]
        return digest


# --- prefixes


@dataclass(frozen=True)
class Prefix:
    """A row with its kept beginning. `spans` has the first and one past the last token of each entry of the row's
    images; `blocks` are the kept blocks of its first tokens."""

    row: PackedRow
    spans: tuple[tuple[int, int], ...]
    blocks: tuple[Tensor, ...] = ()

    @property
    def known(self) -> int:
        """Number of tokens whose keys and values are kept."""
        return BLOCK * len(self.blocks)

    def rest(self) -> PackedRow:
        """The row without its known tokens, for a causal forward pass."""
        row, start = self.row, self.known
        if not start:
            return row
        length = len(row.ids) - start
        return PackedRow(
            ids=row.ids[start:],
            image_mask=row.image_mask[start:],
            written_in=row.written_in[start:],
            taught=row.taught[start:],
            before=tuple(range(-1, length - 1)),
            until=(length,) * length,
            positions=row.positions[:, start:],
            images=tuple(image for image, (first, _) in zip(row.images, self.spans, strict=True) if first >= start),
            step_ends=(),
        )


def can_keep(layers: Sequence[Any]) -> bool:
    """Whether the model's keys and values can be kept: a sliding window or a running state forgets a prefix."""
    return all(type(layer) is DynamicLayer for layer in layers)


def image_spans(row: PackedRow, prompt_tokens: int) -> tuple[tuple[int, int], ...] | None:
    """The tokens of each entry of the row's images. The prompt's images are one entry; each crop is one, in a turn of
    its own. None if the row is made in another way."""
    runs: list[tuple[int, int]] = []
    for i, is_image in enumerate(row.image_mask):
        if is_image and runs and (runs[-1][1] == i or i < prompt_tokens):
            runs[-1] = (runs[-1][0], i + 1)
        elif is_image:
            runs.append((i, i + 1))
    return tuple(runs) if len(runs) == len(row.images) else None


def block_keys(kept: Kept, prefix: Prefix, ids: Sequence[int]) -> list[bytes]:
    """The keys of all whole blocks of ids that begin with the row's."""
    images = {start: kept.digest(image) for (start, _), image in zip(prefix.spans, prefix.row.images, strict=True)}
    chain, keys = hashlib.sha256(), []
    numbers = np.asarray(ids, dtype=np.int64)
    for start in range(0, len(ids) - BLOCK + 1, BLOCK):
        for i in images.keys() & set(range(start, start + BLOCK)):
            chain.update(images[i])
        chain.update(numbers[start : start + BLOCK].tobytes())
        keys.append(chain.digest())
    return keys


def find_prefix(kept: Kept, row: PackedRow, prompt_tokens: int) -> Prefix | None:
    """The row with the kept blocks of its longest known prefix. It ends before the last token, whose logits are needed,
    and outside the images, which are encoded as a whole. None if the row's images cannot be told apart."""
    spans = image_spans(row, prompt_tokens)
    if spans is None:
        return None
    prefix = Prefix(row, spans)
    blocks: list[Tensor] = []
    for key in block_keys(kept, prefix, row.ids[:-1]):
        if (block := kept.blocks.get(key)) is None:
            break
        blocks.append(block)
    while any(first < BLOCK * len(blocks) < last for first, last in spans):
        blocks.pop()
    return Prefix(row, spans, tuple(blocks))


# --- images


@dataclass(frozen=True)
class Features:
    """The vision tower's output for one entry of images. Per image: the embeddings, and those that deeper layers of the
    text model take (Qwen3-VL's deepstack), which is one list for each such layer."""

    embeddings: tuple[Tensor, ...]
    deeper: tuple[tuple[Tensor, ...], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(one.nbytes for layer in (self.embeddings, *self.deeper) for one in layer)


def features_of(kept: Kept, model: Any, images: Sequence[Images]) -> list[Features]:
    """The features of all entries of images; each that is not kept is encoded once."""
    keys = [kept.digest(image) for image in images]
    found = {key: kept.features[key] for key in keys if key in kept.features}
    new = {key: image for key, image in zip(keys, images, strict=True) if key not in found}
    if new:
        found |= zip(new, _encoded(model, list(new.values())), strict=True)
    for key in new:
        with suppress(ValueError):  # larger than the whole cache
            kept.features[key] = found[key]
    return [found[key] for key in keys]


def _encoded(model: Any, images: Sequence[Images]) -> list[Features]:
    joined = joined_images([dict(image) for image in images], tiles="")
    batch = {name: tensor.to(model.device) for name, tensor in joined.items()}
    output = model.model.get_image_features(**batch, return_dict=True)
    layers = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
    made, at = [], 0
    for image in images:
        end = at + len(image["image_grid_thw"])
        # Copies, because a part of a tensor keeps all of it in memory.
        embeddings, *deeper = [tuple(one.clone() for one in layer[at:end]) for layer in layers]
        made.append(Features(embeddings, tuple(deeper)))
        at = end
    return made


@dataclass
class _ImageFeatures(ModelOutput):  # type: ignore[misc]
    """What `get_image_features` returns: a tensor per image, and for each deeper layer one per image."""

    pooler_output: list[Tensor] | None = None
    deepstack_features: list[list[Tensor]] | None = None


@contextmanager
def giving(model: Any, features: Sequence[Features]) -> Iterator[None]:
    """Within the context, the model takes these features instead of encoding its pixels."""
    joined = _ImageFeatures(
        pooler_output=[one for entry in features for one in entry.embeddings],
        deepstack_features=[
            [one for layer in layers for one in layer]
            for layers in zip(*(entry.deeper for entry in features), strict=True)
        ],
    )
    model.model.get_image_features = lambda *pixels, **options: joined
    try:
        yield
    finally:
        del model.model.get_image_features
