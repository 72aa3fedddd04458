"""Every example in a docstring gives what it says, and the functions that people call first have one."""

from __future__ import annotations

import ast
import doctest
import importlib
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import pytest

from tests.support.paths import ROOT

CALLED_FIRST = {
    "clip_common.config.published:pretrained",
    "clip_common.paddle_api:load",
    "clip_common.paddle_api:tokenize",
    "clip_common.paddle_api:transform",
    "clip_common.predictor:Predictor",
    "clip_common.predictor:Predictor.classify",
    "clip_common.predictor:Predictor.embed",
    "clip_common.weights.locate:find_local",
    "clip_common.zero_shot.explain:explain",
}


def examples_in(node: ast.AST, above: str) -> Iterator[str]:
    """The functions and classes with an example, by their names below a module."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            if ">>>" in (ast.get_docstring(child) or ""):
                yield above + child.name
            yield from examples_in(child, f"{above}{child.name}.")


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


EXAMPLES = [
    f"{module_of(file)}:{name}"
    for file in sorted((ROOT / "clip_common").rglob("*.py"))
    for name in examples_in(ast.parse(file.read_text("utf-8")), "")
]


def test_what_people_call_first_has_an_example() -> None:
    assert set(EXAMPLES) >= CALLED_FIRST


@pytest.mark.parametrize(
    "name",
    [  # a heat map takes 256 images
        pytest.param(name, marks=pytest.mark.slow) if name.endswith(":explain") else name for name in EXAMPLES
    ],
)
def test_an_example_gives_what_it_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    module_name, _, path = name.partition(":")
    module = importlib.import_module(module_name)
    found = reduce(getattr, path.split("."), module)
    (example,) = doctest.DocTestFinder(recurse=False).find(found, name, globs=vars(module))
    assert doctest.DocTestRunner().run(example).failed == 0
