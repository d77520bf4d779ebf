"""Embed images with a timm model, to find copies that the perceptual hash misses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlprm.data.dataset import batches
from vlprm.errors import UserError
from vlprm.images import content_hash, open_image
from vlprm.model.loading import placement

BATCH = 64  # images


@dataclass(frozen=True)
class Embedder:
    """A timm model without its classifier, and its image transform."""

    model: Any
    transform: Any
    device: str

    def __call__(self, images: Iterable[bytes]) -> np.ndarray:
        """Unit vectors (images, width) of at least one image."""
        return np.concatenate([self._batch(batch) for batch in batches(images, BATCH)])

    @torch.inference_mode()
    def _batch(self, images: Sequence[bytes]) -> np.ndarray:
        pixels = torch.stack([self.transform(open_image(data)) for data in images]).to(self.device)
        vectors: np.ndarray = torch.nn.functional.normalize(self.model(pixels), dim=-1).cpu().numpy()
        return vectors


def load_embedder(name: str) -> Embedder:
    """Load a timm model from a folder saved by timm (`config.json` and weights), or by name, downloading its weights if
    they are not cached. UserError if timm is not installed or the model cannot be loaded."""
    if find_spec("timm") is None:
        raise UserError("an embedding needs timm; pip install 'vlprm[timm]'")
    import timm

    source = f"local-dir:{name}" if Path(name).is_dir() else name
    try:
        model = timm.create_model(source, pretrained=True, num_classes=0)
    except Exception as error:  # timm, the Hub client, torch and safetensors each raise their own
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"embedding {name!r} cannot be loaded ({said}); give a folder saved by timm, or the name of a timm"
            " model whose weights can be downloaded"
        ) from error
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    device, _ = placement("auto", "float32")
    return Embedder(model.to(device).eval(), transform, device)


@dataclass
class Likeness:
    """Embeddings of the benchmark images, (images, width), and the index of the item that owns each. `known` caches the
    nearest item of each dataset image by content hash."""

    embedder: Embedder
    vectors: np.ndarray
    owners: Sequence[int]
    known: dict[str, tuple[float, int]] = field(default_factory=dict)

    def nearest(self, rows: Sequence[Sequence[bytes]]) -> list[tuple[float, int] | None]:
        """For each row, the highest cosine between its images and the items' images, and that item's index; None for a
        row without images."""
        new = {content_hash(data): data for images in rows for data in images}
        new = {key: data for key, data in new.items() if key not in self.known}
        found = self.embedder(new.values()) @ self.vectors.T if new else ()
        for key, cosines in zip(new, found, strict=True):
            self.known[key] = (float(cosines.max()), self.owners[int(cosines.argmax())])
        return [max((self.known[content_hash(data)] for data in images), default=None) for images in rows]
