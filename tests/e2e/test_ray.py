"""Ray's workers, as this package's processes start them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="of the extra [test]")

DRIVER = """
import ray
from clip_common.system.ray_job import RayJob
ray.init("local", job_config=RayJob(), num_cpus=1, include_dashboard=False, logging_level="error")

@ray.remote
def look():
    import os
    import ftfy
    return ftfy.__file__, os.getcwd()

print(*ray.get(look.remote()), sep="\\n")
"""


@pytest.mark.e2e
def test_workers_execute_no_file_of_the_users_folder(tmp_path: Path) -> None:
    folder, driver = tmp_path / "images", tmp_path / "bin" / "driver.py"
    for path in (folder, driver.parent):
        path.mkdir()
    (folder / "ftfy.py").write_text("raise SystemExit('a file of the folder was executed')")
    driver.write_text(DRIVER)
    done = subprocess.run(
        [sys.executable, driver],
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    imported, stands_in = done.stdout.splitlines()
    assert not Path(imported).is_relative_to(tmp_path)
    assert Path(stands_in) == folder  # relative paths of the user stay what they are
