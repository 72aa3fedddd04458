"""The architecture as a test: who may import whom, no circle, and what loads without Paddle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from clip_common.cli.main import VERBS
from tests.support.paths import ROOT

PACKAGE = ROOT / "clip_common"
# From the bottom up: a part may import its own layer and those below. docs/architecture.md shows the same.
LAYERS: list[set[str]] = [
    {"config", "errors", "system", "version"},
    {"weights", "preprocessing", "text"},
    {"models"},
    {"engines"},
    {"inputs", "predictor", "zero_shot", "visualize", "paddle_api"},
    {"embedding", "search", "evaluation", "adaptation", "trainer"},
    {"cli", "hub", "server"},
]
TOP = {"__init__", "__main__"}
WITHOUT_PADDLE = [
    *("preprocessing", "text", "weights", "zero_shot", "search", "predictor", "cli.main"),
    *("engines.graph", "engines.compile_worker"),
]


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The folder or file directly in the package that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(file: Path, lazy: bool) -> Iterator[str]:
    """Modules of the package that a file imports; with `lazy`, also inside functions. Not those for types."""
    modules = {module_of(other) for other in files()}
    module = module_of(file)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in _statements(ast.parse(file.read_text("utf-8")), lazy):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            target = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{target}.{alias.name}"
                yield name if name in modules else target


def _statements(tree: ast.AST, lazy: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if for_types or (not lazy and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
            continue
        yield node
        yield from _statements(node, lazy)


def test_nothing_imports_upward() -> None:
    height = {part: level for level, parts in enumerate(LAYERS) for part in parts}
    upward = [
        f"{module_of(file)} imports {target}"
        for file in files()
        for target in imports(file, lazy=True)
        if part_of(module_of(file)) not in TOP
        and part_of(target) not in TOP
        and height[part_of(target)] > height[part_of(module_of(file))]
    ]
    assert upward == []


def test_only_module_and_package_names_of_the_table_exist() -> None:
    parts = {part_of(module_of(file)) for file in files()} - TOP
    assert parts == set.union(*LAYERS)


def test_no_import_circle() -> None:
    graph = {module_of(file): set(imports(file, lazy=False)) - {module_of(file)} for file in files()}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_verbs_share_options_and_not_each_others_files() -> None:
    verbs = {f"clip_common.cli.{verb.replace('-', '_')}" for verb in VERBS}
    assert verbs <= {module_of(file) for file in files()}
    shared = [
        f"{module_of(file)} imports {target}"
        for file in files()
        for target in imports(file, lazy=True)
        if module_of(file) in verbs and target in verbs
    ]
    assert shared == []


def test_relative_imports_only() -> None:
    """A packed module carries the package under another name."""
    absolute = [
        module_of(file)
        for file in files()
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if (
            isinstance(node, ast.ImportFrom)
            and not node.level
            and (node.module or "").startswith("clip_common")
        )
        or (isinstance(node, ast.Import) and any(a.name.startswith("clip_common") for a in node.names))
    ]
    assert absolute == []


def test_paddle_comes_without_its_signal_handlers() -> None:
    """Whatever imports Paddle imports `models` too, which takes them away: see there."""
    graph = {module_of(file): set(imports(file, lazy=False)) for file in files()}

    def loaded(module: str, seen: set[str]) -> set[str]:
        if module not in seen and module in graph:
            seen.add(module)
            for other in (module.rpartition(".")[0], *graph[module]):
                loaded(other, seen)
        return seen

    with_paddle = [
        module_of(file)
        for file in files()
        for node in _statements(ast.parse(file.read_text("utf-8")), lazy=False)
        if isinstance(node, ast.Import) and any(name.name.split(".")[0] == "paddle" for name in node.names)
    ]
    assert "clip_common.trainer.loss" in with_paddle
    assert [module for module in with_paddle if "clip_common.models" not in loaded(module, set())] == []


def test_loads_without_paddle() -> None:
    parts = tuple(f"clip_common.{name}." for name in WITHOUT_PADDLE)
    modules = [
        module_of(file)
        for file in files()
        if (module_of(file) + ".").startswith(parts) and file.stem != "milvus_index"
    ]
    assert all(any((module + ".").startswith(part) for module in modules) for part in parts)
    code = f"""if True:
        import importlib, sys
        for module in {modules}:
            importlib.import_module(module)
            if "paddle" in sys.modules:
                sys.exit(f"{{module}} imports Paddle")
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
