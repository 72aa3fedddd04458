"""Runs a command that is expected to fail at once."""

from __future__ import annotations

import pytest

from clip_common.cli.main import main


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run `clip-hub`, which must fail with one line of error, and return that line."""
    status: object
    try:
        status = main(list(argv))
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr()
    assert status in (1, 2), said
    assert said.out == "", said
    assert said.err.count("\n") == 1, said
    return said.err
