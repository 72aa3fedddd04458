"""Runs the Ray Serve app as a separate process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.support.paths import ROOT
from tests.support.processes import free_port


class Server:
    """A running server; `stop` ends it with SIGTERM."""

    def __init__(self, log: Path, *options: str, **environment: str) -> None:
        self.log, self.port = log, free_port()
        command = [sys.executable, "-m", "clip_common", "serve", "clip_mini", "--port", str(self.port)]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *options], stdout=output, stderr=output, cwd=ROOT, env=os.environ | environment
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.get("/ready") == 200:
                return
            time.sleep(1)
        self.stop()
        raise AssertionError(f"the server did not start: {self.log.read_text()[-3000:]}")

    def get(self, path: str) -> int | None:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=10).status_code
        except requests.RequestException:
            return None

    def ask(self, content: dict[str, Any]) -> requests.Response:
        return requests.post(f"http://127.0.0.1:{self.port}/predict/clip_mini", json=content, timeout=120)

    def replica(self) -> psutil.Process:
        """The process of the replica, which has the model."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        return next(p for p in family if "ServeReplica:clip-clip_mini:clip_mini" in " ".join(p.cmdline()))

    def stop(self) -> int:
        family = (
            psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        )
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(90)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            for process in psutil.wait_procs(family, timeout=20)[1]:
                process.kill()
