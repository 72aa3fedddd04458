"""PaddleHub's base class, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from clip_common.errors import RequestError
from clip_common.hub import ClipModule


class WithoutModel:
    @property
    def model(self) -> None:
        pytest.fail("the weights were loaded")


@pytest.mark.slow  # PaddleHub takes seconds to import
def test_nothing_is_exported_to_where_it_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    module = cast(ClipModule, WithoutModel())
    for export in (ClipModule.save_inference_model, ClipModule.export_onnx_model):
        with pytest.raises(RequestError, match="file is a file, not a folder"):
            export(module, str(tmp_path / "file" / "below"))
