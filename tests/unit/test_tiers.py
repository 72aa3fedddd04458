"""The unit tier runs with the extra [dev] alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.paths import ROOT


@pytest.mark.slow
def test_the_unit_tests_are_collected_without_the_other_extras() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.without_extras", "tests/unit"]
    done = subprocess.run(
        [*command, "--collect-only", "-q"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:]
