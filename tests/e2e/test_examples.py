"""The programs of examples/ and the README's Python, as a user runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import EXAMPLES, ROOT

pytestmark = pytest.mark.e2e
NOTEBOOK = EXAMPLES / "from_zero_shot_to_adapt.ipynb"


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_classify() -> None:
    lines = run(
        "examples/classify.py", "examples/diagram.png", "--labels", "a diagram,a dog,a cat"
    ).splitlines()
    assert lines[0] == "examples/diagram.png"
    assert lines[1].endswith("a diagram")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["classify.py", "missing.png"], "missing.png: "),
        (["search.py", "missing", "a dog"], "[Errno 2] No such file or directory: 'missing'"),
        (["search.py", "docs", "a dog"], "paths is empty"),
    ],
)
def test_what_is_wrong_is_said(command: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, f"examples/{command[0]}", *command[1:]], cwd=ROOT, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(said) and "Traceback" not in done.stderr


def test_search() -> None:
    first = run("examples/search.py", "examples", "a diagram").splitlines()[:2]
    assert {line.split()[1] for line in first} == {"diagram.png", "flowchart.png"}


@pytest.mark.parametrize("name", ["README.md", "README_zh.md", "docs/quickstart.md"])
def test_the_pages_python_runs(name: str, hub_home: Path) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / name).read_text("utf-8"), re.DOTALL))
    assert "a diagram" in run("-c", code)


def test_the_notebook_runs(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="of the extra [evaluate]")
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    script = tmp_path / "notebook.py"
    script.write_text(code, "utf-8")
    assert "adapted" in run(script, cwd=ROOT)
