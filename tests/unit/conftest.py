"""What makes the unit tests quick."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_common.engines import artifacts
from clip_common.engines.compiled_engine import CompiledEngine, Tower

ENGINES = Path(__file__).parent / "engines"
_opened: dict[tuple[str, str, Path, int, int], Tower] = {}


@pytest.fixture(autouse=True)
def towers_are_opened_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hundreds of tests make a predictor of one module: they share its towers, which keep nothing of a call.

    The tests of the engines open their own.
    """
    if request.path.is_relative_to(ENGINES):
        yield
        return
    open_in = CompiledEngine._open_in

    def once(engine: CompiledEngine, folder: Path, tower: str) -> Tower:
        path = folder / artifacts.file_of(tower)
        if not path.exists():
            return open_in(engine, folder, tower)
        status = path.stat()
        key = engine.name, engine._precision, path, status.st_ino, status.st_mtime_ns
        if key not in _opened:
            _opened[key] = open_in(engine, folder, tower)
        return _opened[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CompiledEngine, "_open_in", once)
        yield
