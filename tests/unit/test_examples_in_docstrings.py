"""The examples of the functions that people call first are there, and give what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

from tests.support.paths import ROOT

FUNCTIONS = [
    "config.pretrained",
    "predictor.Predictor",
    "predictor.Predictor.classify",
    "predictor.Predictor.embed",
    "paddle_api.load",
    "paddle_api.tokenize",
    "paddle_api.transform",
    "text.tokenizer.tokenize",
    "weights.locate.find_local",
    "zero_shot.scoring.l2_normalize",
    "zero_shot.scoring.top_k_labels",
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_example(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = name.split(".")
    depth = next(i for i, part in enumerate(path) if part[0].isupper()) if "Predictor" in path else -1
    module = importlib.import_module("clip_common." + ".".join(path[:depth]))
    found = module
    for part in path[depth:]:
        found = getattr(found, part)
    (example,) = doctest.DocTestFinder(recurse=False).find(found, name, globs=vars(module))
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
