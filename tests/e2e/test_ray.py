"""Ray's workers, as this package's processes start them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="of the extra [test]")

import numpy as np

from clip_common.embedding import ray_executor
from clip_common.embedding.items import Item
from clip_common.embedding.parts import Part
from clip_common.embedding.store import Store
from clip_common.errors import RequestError
from tests.support.stores import JOB, ORIGIN, contents, run, write_images

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


class Deadly(Item):
    """An item that ends the process which unpickles it, as a decoder might that crashes."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


def test_images_that_kill_their_worker_do_not_go_round_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "_RETRIES", 1)
    part: Part = (0, [Deadly("a.png", "stamp", str(tmp_path / "a.png"))])
    made = ray_executor.make_parts_on_ray([part], Store(tmp_path / "out"), JOB, ORIGIN, None)
    with pytest.raises(RequestError, match="a Ray worker died 2 times on the same images"):
        list(made)


def test_what_ray_runs_has_ended_before_ray_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its threads end the process before the error is told."""
    running: list[str] = []
    shutdown = ray_executor.ray.shutdown

    def noted() -> None:
        running.extend(t.name for t in threading.enumerate() if t.name.startswith("StreamingExecutor"))
        shutdown()

    def write_errors(store: Store, errors: dict[str, tuple[str, str]]) -> None:
        if errors:
            raise RequestError("the disk is full")

    monkeypatch.setattr(ray_executor.ray, "shutdown", noted)
    monkeypatch.setattr(Store, "write_errors", write_errors)
    images = write_images(tmp_path / "pictures")
    with pytest.raises(RequestError, match="the disk is full"):
        run(images, tmp_path / "ray", job=replace(JOB, part_size=1), ray=True)
    assert not running and not ray_executor.ray.is_initialized()
