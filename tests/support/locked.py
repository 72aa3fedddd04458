"""Folders that cannot be listed, also for root, as whom the tests may run."""

from __future__ import annotations

import os
from typing import Any

import pytest


def lock_folder(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make listing a folder of this name fail, wherever it is."""
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith(f"/{name}"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
