"""Paddle's signal handlers, in which a process that is ended can hang, are gone in every process of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# Which signals have a handler, as the kernel has it; Python does not know of those set in C++.
PROBE = """
import signal
mine = lambda *_: None
signal.signal(signal.SIGUSR2, mine)
{before}
import {module}
caught = int(next(line for line in open("/proc/self/status") if line.startswith("SigCgt")).split()[1], 16)
print([number for number in (signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT) if caught >> (number - 1) & 1])
print(signal.getsignal(signal.SIGUSR2) is mine)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's signals from /proc")
@pytest.mark.parametrize(
    ("before", "module", "expected"),
    [
        pytest.param("", "clip_common.trainer.parallel", [], marks=pytest.mark.slow),
        pytest.param("import paddle", "clip_common.engines.paddle_engine", [], marks=pytest.mark.slow),
        ("signal.signal(signal.SIGTERM, mine)", "clip_common.models.clip", [15]),
    ],
)
def test_signals_end_a_process_that_imported_paddle(before: str, module: str, expected: list[int]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROBE.format(before=before, module=module)],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    shown = "[" + ", ".join(f"<Signals.SIGTERM: {number}>" for number in expected) + "]"
    assert done.stdout.splitlines() == [shown, "True"], done.stderr[-2000:]
