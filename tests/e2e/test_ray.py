"""Ray's workers, as this package's processes start them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="of the extra [test]")

import numpy as np

from clip_common.embedding.store import Store
from tests.support.stores import contents, run, write_images

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


def test_embed_on_ray_gives_the_same(tmp_path: Path) -> None:
    images = write_images(tmp_path / "pictures")
    run(images, tmp_path / "local")
    report = run(images, tmp_path / "ray", ray=True)
    assert (report.embedded, report.failed) == (20, 1)
    local, on_ray = contents(tmp_path / "local"), contents(tmp_path / "ray")
    assert local.keys() == on_ray.keys()
    for path, vector in local.items():
        np.testing.assert_allclose(on_ray[path], vector, atol=1e-5)
    assert Store(tmp_path / "ray").errors() == Store(tmp_path / "local").errors()
    assert run(images, tmp_path / "ray", ray=True).embedded == 0
