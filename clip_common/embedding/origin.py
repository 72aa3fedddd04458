"""The model and options that produced embeddings; stored together with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..predictor import Predictor


@dataclass(frozen=True)
class Origin:
    """The model and options that produced the embeddings of a store; equal in all its parts.

    Attributes:
        dtype: the type that embeddings are stored as.
        precision: the type that they were computed in.
    """

    module: str
    weights_sha256: str
    embed_dim: int
    dtype: str = "float32"
    precision: str = "float32"
    exif_rotation: bool = False
    fast_jpeg: bool = False

    @classmethod
    def of(cls, predictor: Predictor, dtype: str = "float32") -> Origin:
        """The origin of a predictor's embeddings, stored as `dtype`."""
        record, options = predictor.record, predictor.options
        return cls(
            record.name,
            predictor.weights_sha256,
            record.config.embed_dim,
            dtype,
            options.precision,
            options.exif_rotation,
            options.fast_jpeg,
        )

    def __str__(self) -> str:
        kept = f"kept as {self.dtype}, computed in {self.precision}"
        options = [name for name in ("exif_rotation", "fast_jpeg") if getattr(self, name)]
        given = ", ".join([kept, *(f"with --{name}" for name in options)])
        return f"{self.module} (weights {self.weights_sha256[:12]}, {given})"
