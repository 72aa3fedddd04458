"""OpenVINO without what it reports to its makers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
