"""The files around the code: what is installed, how set-up repairs itself, what the deployment needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PYTHONS = ("3.10", "3.11", "3.12")
TESTED_EXTRAS = PROJECT["optional-dependencies"].keys() - {"parity"}  # torch: where a machine has its wheel


def constraints(python: str) -> dict[str, str]:
    """The version of each package on a Python, from `constraints.txt`."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    held = [r for r in requirements if r.marker is None or r.marker.evaluate({"python_version": python})]
    assert len({r.name for r in held}) == len(held), "a package with two versions"
    return {r.name: str(r.specifier).removeprefix("==") for r in held}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_tested_versions_satisfy_what_the_project_asks_for(python: str) -> None:
    lines = list(PROJECT["dependencies"])
    for extra in TESTED_EXTRAS:
        lines += PROJECT["optional-dependencies"][extra]
    held = constraints(python)
    for requirement in map(Requirement, lines):
        if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
            continue
        if requirement.name not in {"pip", "setuptools", "clip-hub"}:  # what installs is not replaced
            version = held[requirement.name.lower()]
            assert requirement.specifier.contains(version), f"{requirement} and {version} on {python}"


def test_constraints_are_names_and_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        assert re.fullmatch(r"#.*|[a-z0-9.-]+==[\w.+!]+( ; [\w.=' ]+)?", line), line


class Setup:
    """`make` in a copy of the tree's files, with an interpreter that only notes what it is called with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.venv = folder / "venv"
        self.calls = folder / "calls"
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder / name)
        self.base = self.interpreter(
            folder / "base", f'mkdir -p "{self.venv}/bin"; cp "$0" {self.venv}/bin/python'
        )

    def interpreter(self, path: Path, on_venv: str = "exit 1", fits: bool = True) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f'#!/bin/sh\necho "$@" >> "{self.calls}"\n'
            f'case "$*" in "-m venv"*) {on_venv};; "-c import pip"*) exit {int(not fits)};; esac\n'
        )
        path.chmod(0o755)
        return path

    def make(self, target: str) -> list[str]:
        """Run a target and return the calls of the interpreters."""
        self.calls.write_text("")
        command = ["make", "--silent", target, f"VENV={self.venv}", f"PYTHON={self.base}"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        subprocess.run(command, cwd=self.folder, env=environment, check=True, timeout=60)
        return self.calls.read_text().splitlines()


@pytest.fixture()
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def test_setup_installs_once_with_the_tested_versions(setup: Setup) -> None:
    installs = [call for call in setup.make("setup") if "install" in call and call.startswith("-m pip")]
    assert len(installs) == 1 and "--constraint constraints.txt" in installs[0]
    assert setup.make("setup") == ["scripts/install_modules.py"]


def test_a_venv_without_pip_or_of_another_python_is_made_again(setup: Setup) -> None:
    setup.interpreter(setup.venv / "bin" / "python", fits=False)
    assert f"-m venv --clear {setup.venv}" in setup.make("setup")


def test_a_venv_whose_setup_was_cut_short_goes_on(setup: Setup) -> None:
    setup.interpreter(setup.venv / "bin" / "python")
    calls = setup.make("setup")
    assert not any(call.startswith("-m venv") for call in calls)
    assert any(call.startswith("-m pip install") for call in calls)


def test_serve_installs_its_extra_once(setup: Setup) -> None:
    assert any("--editable .[dev,serve]" in call for call in setup.make("serve"))
    assert setup.make("serve") == ["scripts/install_modules.py", "-m clip_common serve clip_mini"]


def containers() -> list[dict]:
    cluster = yaml.safe_load((ROOT / "deploy" / "rayservice.yaml").read_text("utf-8"))["spec"][
        "rayClusterConfig"
    ]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"]["containers"][0] for group in groups]


def test_kuberay_finds_the_port_that_serve_listens_on() -> None:
    service = yaml.safe_load((ROOT / "deploy" / "rayservice.yaml").read_text("utf-8"))["spec"]
    listens = yaml.safe_load(service["serveConfigV2"])["http_options"]["port"]
    for container in containers():
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["serve"] == listens, container["name"]
    # Beside a port of the manifest KubeRay adds only that of the metrics to the head.
    assert {"gcs-server", "dashboard", "client"} <= {port["name"] for port in containers()[0]["ports"]}


def test_nothing_is_reported_to_the_makers_of_ray() -> None:
    for container in containers():
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"], container["name"]


def test_the_image_has_what_the_probes_call_and_the_tested_versions() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    runs = [line for line in text.splitlines() if line.startswith("RUN")]
    assert any("apt-get install" in run and " wget " in run for run in runs)
    assert all("--constraint constraints.txt" in run for run in runs if "pip install" in run)
    copied = " ".join(line for line in text.splitlines() if line.startswith("COPY"))
    assert "constraints.txt" in copied
