from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from clip_common.errors import WeightsError
from clip_common.weights.class_head import read_classes


@pytest.mark.parametrize("record", ["{", "[]", '{"layout": "openai"}'])
def test_classes_whose_names_cannot_be_read_are_refused(record: str, tmp_path: Path) -> None:
    """They are the module's answers: without them it would answer with other labels, and say nothing."""
    path = tmp_path / "adapted.safetensors"
    save_file({"class_vectors": np.zeros((2, 4), np.float32)}, path, {"record": record})
    with pytest.raises(WeightsError, match=r"adapted\.safetensors: the classes in its record"):
        read_classes(path, 4)
