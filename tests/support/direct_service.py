"""A service for the HTTP routes that runs in this process, without Ray."""

from __future__ import annotations

from typing import Any

from clip_common.config import pretrained
from clip_common.predictor import Predictor
from clip_common.server.answering import answer_one
from clip_common.server.request import PredictRequest

MODULE = "clip_mini"
URL = f"/predict/{MODULE}"


class Direct:
    """A service in this process; it records what it is told and can fail."""

    modules = (MODULE,)

    def __init__(self) -> None:
        self.predictor = Predictor(pretrained(MODULE))
        self.fault: Exception | None = None
        self.seen: list[tuple[str, int]] = []

    async def ask(self, module: str, work: PredictRequest) -> Any:
        if self.fault:
            raise self.fault
        return answer_one(self.predictor, work)

    async def ready(self) -> str | None:
        return "not yet" if self.fault else None

    def observe(self, module: str, status: int, seconds: float) -> None:
        self.seen.append((module, status))

    def metrics(self) -> str:
        return "clip_requests_total 1\n"
