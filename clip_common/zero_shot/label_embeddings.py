"""One embedding per label (paper section 3.1), cached in memory and on disk."""

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
from ..system.file_names import printable
from ..system.log import logger
from ..system.output import atomic_file
from ..text.prompts import Prompts
from .scoring import l2_normalize

Progress = Callable[[int, int], None]
Encode = Callable[[Sequence[str]], np.ndarray]

_BYTES_IN_MEMORY = 128 << 20
_BYTES_ON_DISK = 512 << 20
TEXTS_AT_ONCE = 4096  # large enough that texts with a common prefix or of equal length can be batched
# Cached embeddings depend on: code and vocabularies of this package, and the libraries of the tokenizer.
_SOURCE = ("data", "engines", "models", "text", "weights", "zero_shot")
_MAKERS = ("ftfy", "regex")
_FEW_LABELS = 64  # all pairs of so many are compared in no time
_SAME = 1 - 1e-5
UNKNOWN_TEXT = "\ue000"  # of the private use area: no model has learned anything of it
_WARNED: set[str] = set()


class LabelEmbeddings:
    """Label embeddings of one set of weights: from memory, from disk, or computed. Thread-safe.

    Args:
        weights_sha256: hash of the weights, part of the cache key.
        embed_dim: length of an embedding.
        precision: compute type, part of the cache key.
    """

    def __init__(self, weights_sha256: str, embed_dim: int, precision: str = "float32") -> None:
        self._origin = weights_sha256, precision
        self._embed_dim = embed_dim
        self._lock = Lock()
        self._in_memory: OrderedDict[str, np.ndarray] = OrderedDict()

    def of(self, prompts: Prompts, encode: Encode, on_progress: Progress | None = None) -> np.ndarray:
        """One embedding per label, float32 [labels, d] of unit length.

        With several templates it is the mean of their unit embeddings, normalised again.

        Args:
            prompts: labels and templates.
            encode: function from texts to features, [n, d], not normalised.
            on_progress: called with (labels done, labels in total) while embeddings are computed.

        Raises:
            LabelError: a label in its template has too many tokens.
        """
        embeddings = self.find(prompts)
        if embeddings is None:
            embeddings = compute_label_embeddings(prompts, encode, on_progress)
            key = self._key(prompts)
            _write(key, embeddings)
            self._remember(key, embeddings)
        return embeddings

    def find(self, prompts: Prompts) -> np.ndarray | None:
        """Embeddings from memory or disk, float32 [labels, d]; None if they would have to be computed."""
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
    """One embedding per label, float32 [labels, d], see `LabelEmbeddings.of`; bypasses the cache."""
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
    """Embeddings cached on disk; None if there are none, or they are damaged or of another shape."""
    file = _file(key)
    try:
        embeddings = np.load(file, allow_pickle=False)
    except Exception:  # on a damaged file numpy may raise anything
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


def warn_of_equal(module: str, labels: Sequence[str], embeddings: np.ndarray) -> None:
    """Warn, once for a module, of two labels whose embeddings, [labels, d], are equal, and so their scores.

    To clip_mini, all words that its training did not have are equal, such as Chinese ones.
    """
    if module in _WARNED or len(labels) > _FEW_LABELS:
        return
    equal = np.argwhere(np.triu(embeddings @ embeddings.T, 1) > _SAME)
    if len(equal):
        _WARNED.add(module)
        one, other = (printable(labels[place]) for place in equal[0])
        logger.warning(
            "%s cannot tell the labels '%s' and '%s' apart: it may not know their words or their language",
            module,
            one,
            other,
        )


def warn_of_unknown(module: str, texts: Sequence[str], embeddings: np.ndarray, unknown: np.ndarray) -> None:
    """Warn of texts that a model embeds like a text without any known word: their results are arbitrary.

    Args:
        module: name of the model.
        texts: the texts to search for.
        embeddings: embeddings of these texts, [n, d].
        unknown: embedding of `UNKNOWN_TEXT`, [d].
    """
    near = embeddings @ unknown > _SAME
    alike = [f"'{printable(text)}'" for text, is_alike in zip(texts, near, strict=True) if is_alike]
    if alike:
        logger.warning(
            "%s knows no word of %s: what it finds by that is arbitrary; use other words, or a module of "
            "their language",
            module,
            ", ".join(alike),
        )
