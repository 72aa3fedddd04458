"""One embedding per label (paper section 3.1), kept so that no label is encoded twice."""

from __future__ import annotations

import json
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Lock

import numpy as np

from ..errors import LabelError
from ..system.cache import (
    best_effort,
    cache_dir,
    digest_of,
    prune,
    source_digest,
    touch,
    versions,
)
from ..system.output import atomic_file
from ..text.prompts import Prompts
from .scoring import l2_normalize

Progress = Callable[[int, int], None]
Encode = Callable[[Sequence[str]], np.ndarray]

_BYTES_IN_MEMORY = 128 << 20
_BYTES_ON_DISK = 512 << 20
TEXTS_AT_ONCE = 4096  # enough for texts of like beginning, such as a template's, and of like length
# What makes them: code and vocabularies of this package, and what that code is built on.
_SOURCE = ("data", "engines", "models", "text", "weights", "zero_shot")
_MAKERS = ("ftfy", "regex")


class LabelEmbeddings:
    """The label embeddings of one set of weights: in memory, on disk, or computed.

    Args:
        weights_sha256: the hash of the weights, part of the embeddings' key.
        embed_dim: length of an embedding.
        precision: what they are computed in, part of it too.
    """

    def __init__(self, weights_sha256: str, embed_dim: int, precision: str = "float32") -> None:
        self._origin = weights_sha256, precision
        self._embed_dim = embed_dim
        self._lock = Lock()
        self._in_memory: OrderedDict[str, np.ndarray] = OrderedDict()

    def of(self, prompts: Prompts, encode: Encode, on_progress: Progress | None = None) -> np.ndarray:
        """One embedding per label, float32 [labels, d] of unit length.

        With several templates it is the mean of their unit embeddings, brought to unit length again.

        Args:
            prompts: labels and templates.
            encode: texts to features, [n, d] not normalised.
            on_progress: called with the number of labels done and of all, if they must be computed.

        Raises:
            LabelError: a label in its template is too long.
        """
        embeddings = self.find(prompts)
        if embeddings is None:
            embeddings = compute_label_embeddings(prompts, encode, on_progress)
            key = self._key(prompts)
            _write(key, embeddings)
            self._remember(key, embeddings)
        return embeddings

    def find(self, prompts: Prompts) -> np.ndarray | None:
        """Embeddings that are in memory or on disk; None where they would have to be computed."""
        key = self._key(prompts)
        with self._lock:
            embeddings = self._in_memory.get(key)
        if embeddings is None:
            embeddings = _read(key, (len(prompts.labels), self._embed_dim))
        if embeddings is not None:
            self._remember(key, embeddings)
        return embeddings

    def _key(self, prompts: Prompts) -> str:
        made_by = [source_digest(*_SOURCE), *versions(*_MAKERS), unicodedata.unidata_version]
        return digest_of(json.dumps([*self._origin, asdict(prompts), *made_by]))

    def _remember(self, key: str, embeddings: np.ndarray) -> None:
        with self._lock:
            self._in_memory[key] = embeddings
            self._in_memory.move_to_end(key)
            while sum(kept.nbytes for kept in self._in_memory.values()) > _BYTES_IN_MEMORY:
                self._in_memory.popitem(last=False)


def compute_label_embeddings(
    prompts: Prompts, encode: Encode, on_progress: Progress | None = None
) -> np.ndarray:
    """One embedding per label, float32 [labels, d], see `LabelEmbeddings.of`; nothing is kept."""
    labels, templates = prompts.labels, len(prompts.templates)
    parts = []
    step = max(1, TEXTS_AT_ONCE // templates)
    for start in range(0, len(labels), step):
        part = Prompts(labels[start : start + step], prompts.templates)
        try:
            features = l2_normalize(encode(part.texts()))  # [labels * templates, d]
        except LabelError as error:
            raise LabelError(f"a label in its template cannot be used: {error}") from error
        features = features.reshape(len(part.labels), templates, -1)
        parts.append(l2_normalize(features.mean(axis=1)))  # labels templates d -> labels d
        if on_progress:
            on_progress(start + len(part.labels), len(labels))
    return np.concatenate(parts).astype(np.float32, copy=False)


def _file(key: str) -> Path:
    return cache_dir() / "labels" / f"{key}.npy"


def _read(key: str, shape: tuple[int, int]) -> np.ndarray | None:
    """Embeddings kept on disk; None where there are none, or not of this shape, or damaged."""
    file = _file(key)
    try:
        embeddings = np.load(file, allow_pickle=False)
    except Exception:  # a damaged one can fail anywhere in numpy
        return None
    touch(file)
    if not isinstance(embeddings, np.ndarray) or embeddings.shape != shape or embeddings.dtype != np.float32:
        return None
    return embeddings if np.isfinite(embeddings).all() else None


def _write(key: str, embeddings: np.ndarray) -> None:
    file = _file(key)
    with best_effort("a set of label embeddings"):
        with atomic_file(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, embeddings, allow_pickle=False)
        prune(file.parent, _BYTES_ON_DISK)
