"""OpenVINO without what it reports to its makers, and without weights in memory twice."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clip_common.config import ViTConfig
from clip_common.engines.graph.towers import write_tower
from clip_common.engines.runtime_onnx import open_graph
from tests.parity import seeded
from tests.parity.tiny import TINY_VIT
from tests.support.full_disk import FullDisk
from tests.support.memory import mapped_pages, resident

pytest.importorskip("openvino", reason="of the extra [openvino]")

IMPORT = """
import sys
events = []
sys.addaudithook(lambda event, args: event.startswith("socket.") and events.append((event, str(args))))
import clip_common.engines.runtime_openvino
import openvino.tools.ovc.telemetry_utils as used
assert used.tm.__name__.endswith("telemetry_stub"), used.tm
assert "openvino_telemetry" not in sys.modules, "left as it was found"
assert not events, events
"""


def test_openvino_reports_nothing_and_keeps_no_id(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("CI", None)  # there it would keep silent by itself
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


@mapped_pages
def test_weights_that_openvino_packs_are_not_in_memory_twice(tmp_path: Path) -> None:
    from clip_common.engines.runtime_openvino import compile_tower, open_tower  # of the extra

    config = replace(TINY_VIT, vision=ViTConfig(patch_size=8, layers=2, width=256))
    target = tmp_path / "image.compiled"
    compile_tower(write_tower(config, seeded.state(config), "image", tmp_path), target, "float32")
    assert target.stat().st_size > 6_000_000
    tower = open_tower(target, "float32")
    assert resident(target) < 1000
    assert np.isfinite(tower(seeded.pixels(config))).all()


def test_what_is_compiled_is_written_part_by_part(tmp_path: Path) -> None:
    """A whole one in memory is a third of the peak of the first call after an installation."""
    from clip_common.engines.runtime_openvino import compile_tower, open_tower

    config = replace(TINY_VIT, vision=ViTConfig(patch_size=8, layers=2, width=256))
    graph, target = write_tower(config, seeded.state(config), "image", tmp_path), tmp_path / "image.compiled"
    tracemalloc.start()
    try:
        compile_tower(graph, target, "float32")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < target.stat().st_size / 2
    pixels = seeded.pixels(config)
    expected = open_graph(graph)(pixels)
    np.testing.assert_allclose(open_tower(target, "float32")(pixels), expected, rtol=1e-3, atol=1e-4)


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    """OpenVINO ignores what its stream raises."""
    from clip_common.engines.runtime_openvino import compile_tower

    graph = write_tower(TINY_VIT, seeded.state(TINY_VIT), "image", tmp_path)
    with pytest.raises(OSError, match="No space left on device"):
        compile_tower(graph, FullDisk(), "float32")  # type: ignore[arg-type]
