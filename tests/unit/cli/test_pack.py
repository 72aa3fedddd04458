"""`clip-hub pack` says where PaddleHub cannot install what it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_common.cli.main import main


@pytest.mark.parametrize(("home", "fails"), [("jean-paul/.paddlehub", True), ("jean_paul/.paddlehub", False)])
def test_a_home_that_paddlehub_cannot_install_into_is_said(
    home: str,
    fails: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive = tmp_path / "clip_mini-1.0.0.tar.gz"
    archive.write_bytes(b"archive")
    monkeypatch.setattr("clip_common.hub.pack.pack", lambda *_: archive)
    monkeypatch.setenv("HUB_HOME", f"/homes/{home}")
    assert main(["pack", "clip_mini", "--output", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{archive}: 7 bytes\n"
    if fails:
        assert "/homes/jean-paul/.paddlehub" in err and "HUB_HOME" in err and len(err.splitlines()) == 1
    else:
        assert err == ""
