"""The interface between the HTTP API and what answers its requests."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from .request import PredictRequest


class Service(Protocol):
    """What the HTTP API serves; `app.Gateway` implements it on Ray Serve."""

    @property
    def modules(self) -> Collection[str]:
        """Names of the modules that are served."""

    async def ask(self, module: str, work: PredictRequest) -> Any:
        """Compute the `results` of a request; raises `ClipError`."""

    async def ready(self) -> str | None:
        """None if every module answers, else a message that says what is missing."""

    def observe(self, module: str, status: int, seconds: float) -> None:
        """Record the status and the duration of a request in the metrics."""

    def metrics(self) -> str:
        """All metrics, in Prometheus' text format."""
