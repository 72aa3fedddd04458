"""One of a thing is not many of them."""

from __future__ import annotations

from clip_common.system.words import counted, were


def test_one_and_many() -> None:
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
    assert [were(n) for n in (1, 2)] == ["1 was", "2 were"]
