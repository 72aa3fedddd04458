"""One of a thing is not many of them."""

from __future__ import annotations

import re

from clip_common.system.words import counted, were
from tests.support.paths import ROOT


def test_one_and_many() -> None:
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
    assert [were(n) for n in (1, 2)] == ["1 was", "2 were"]


def test_numbers_that_may_be_one_are_counted() -> None:
    """A message with a length in it and a plural behind it."""
    plural = re.compile(r"\{len\([^{}]*\)\} (images|labels|classes|names|texts|fields|embeddings|words)\b")
    allowed = {"{len(stored)} images", "{len(fitted.fits)} labels"}  # 200,000 and more, and more than 40
    for file in (ROOT / "clip_common").rglob("*.py"):
        found = {match[0] for match in plural.finditer(file.read_text("utf-8"))}
        assert found <= allowed, file
