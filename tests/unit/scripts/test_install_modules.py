"""Set-up puts the tree's modules into PaddleHub's home, wherever that is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def install(hub_home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "install_modules.py")]
    environment = {**os.environ, "HUB_HOME": str(hub_home)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def is_whole(installed: Path) -> bool:
    return (installed / "module.py").read_bytes() == (
        ROOT / "modules" / installed.name / "module.py"
    ).read_bytes()


@pytest.mark.parametrize("home", ["jean-paul", "with blank", "图", "a'b"])
def test_any_home_works_and_nothing_is_written_beside_it(home: str, tmp_path: Path) -> None:
    hub_home = tmp_path / "a-b" / home / ".paddlehub"
    assert install(hub_home).returncode == 0
    installed = list((hub_home / "modules").iterdir())
    assert {path.name for path in installed} == {
        path.parent.name for path in ROOT.glob("modules/*/module.py")
    }
    assert all(map(is_whole, installed))
    assert list(tmp_path.iterdir()) == [tmp_path / "a-b"]
    # PaddleHub's own installation writes there.
    assert not Path(str(hub_home).replace("-", "_")).exists()


def test_a_module_that_differs_is_replaced_and_others_stay(tmp_path: Path) -> None:
    install(tmp_path)
    changed, foreign = tmp_path / "modules" / "clip_mini", tmp_path / "modules" / "another"
    (changed / "module.py").write_text("# older")
    (changed / "left_over.py").write_text("")
    foreign.mkdir()
    kept = (tmp_path / "modules" / "clip_rn50" / "module.py").stat().st_ino
    assert install(tmp_path).returncode == 0
    assert is_whole(changed) and not (changed / "left_over.py").exists()
    assert foreign.is_dir()
    assert (tmp_path / "modules" / "clip_rn50" / "module.py").stat().st_ino == kept


def test_a_home_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = install(tmp_path / "file")
    assert done.returncode == 1
    assert "HUB_HOME" in done.stderr and len(done.stderr.splitlines()) == 1
