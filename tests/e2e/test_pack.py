"""Archives: reproducible, strict about weights, and at work where this repository is not."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from clip_common.config import RN50, pretrained
from clip_common.engines.select import choose
from clip_common.errors import WeightsError
from clip_common.hub.pack import pack
from clip_common.predictor import Predictor
from clip_common.version import __version__
from clip_common.weights.readers import read_state
from tests.parity import seeded
from tests.support.checkpoints import Checkpoints
from tests.support.elsewhere import run_elsewhere
from tests.support.paths import ROOT

MINI = pretrained("clip_mini")
DIAGRAM = ROOT / "examples" / "diagram.png"
LABELS = ["a diagram", "a dog", "a cat"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(MINI, tmp_path_factory.mktemp("dist"))


HUB = "import sys; sys.argv[0] = 'hub'; from paddlehub.commands.utils import execute; sys.exit(execute())"


def test_same_inputs_same_bytes(archive: Path, tmp_path: Path) -> None:
    assert pack(MINI, tmp_path).read_bytes() == archive.read_bytes()


def test_what_is_inside(archive: Path) -> None:
    assert archive.name == f"clip_mini-{__version__}.tar.gz"
    with tarfile.open(archive) as opened:
        names = opened.getnames()
        member = opened.extractfile("clip_mini/module.py")
        assert member
        module = member.read().decode()
    assert {name.split("/")[0] for name in names} == {"clip_mini"}
    wanted = (
        "module.py __init__.py README.md README_en.md requirements.txt LICENSE NOTICE clip_mini.safetensors "
        "clip_common/models/clip.py clip_common/data/bpe_simple_vocab_16e6.txt.gz"
    ).split()
    assert {f"clip_mini/{name}" for name in wanted} <= set(names)
    assert "from .clip_common.hub import ClipModule" in module
    assert not any("__pycache__" in name for name in names)


def test_installed_archive_answers_as_the_tree_does(archive: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    is_there = "import importlib.util; print(importlib.util.find_spec('clip_common'))"
    assert run_elsewhere(is_there, home=home, cwd=tmp_path).strip() == "None"
    run_elsewhere(HUB, "install", str(archive), home=home, cwd=tmp_path)
    output = run_elsewhere(
        HUB, "run", "clip_mini", "--input_path", str(DIAGRAM), "--labels", ",".join(LABELS),
        "--format", "json", home=home, cwd=tmp_path,
    )  # fmt: skip
    (expected,) = Predictor(MINI).classify(paths=[DIAGRAM], labels=LABELS)
    (result,) = json.loads(output)["results"]
    assert [item["label"] for item in result["labels"]] == [item["label"] for item in expected]
    for found, wanted in zip(result["labels"], expected, strict=True):
        assert abs(found["score"] - wanted["score"]) <= 1e-5
    # Its compile worker and its weights are found where it is installed: no slow engine, no download.
    code = """
import paddlehub as hub
clip = hub.Module(name="clip_mini")
print(clip.predictor.engine().name, clip.predictor.weights_sha256)
"""
    said = run_elsewhere(code, home=home, cwd=tmp_path).split()[-2:]
    carried = home / "modules" / "clip_mini" / "clip_mini.safetensors"
    assert said == [choose().name, hashlib.sha256(carried.read_bytes()).hexdigest()]
    assert said[0] != "paddle"


def test_two_versions_in_one_process(archive: Path, tmp_path: Path) -> None:
    """Two copies in differently named folders, one with another `clip_common`, beside each other."""
    for name in ("mini_old", "mini_new"):
        shutil.unpack_archive(archive, tmp_path / name, filter="data")
        (tmp_path / name / "clip_mini").rename(tmp_path / f"{name}_module")
    prompts = tmp_path / "mini_old_module" / "clip_common" / "text" / "prompts.py"
    prompts.write_text(
        prompts.read_text("utf-8").replace('_BARE = ("{}",)', '_BARE = ("a dog and {}",)'), "utf-8"
    )
    code = """
import json, sys
import paddlehub as hub
old, new, image = (*(hub.Module(directory=folder) for folder in sys.argv[1:3]), sys.argv[3])
call = {"paths": [image], "labels": ["bird", "cat", "dog"]}
print(json.dumps([m.classify(**call)[0][0]["score"] for m in (old, new, old)]))
"""
    folders = [str(tmp_path / f"{name}_module") for name in ("mini_old", "mini_new")]
    output = run_elsewhere(
        code, *folders, str(ROOT / "examples" / "cat.png"), home=tmp_path / "home", cwd=tmp_path
    )
    old, new, old_again = json.loads(output.splitlines()[-1])
    assert old == old_again
    assert abs(old - new) > 1e-3


def test_named_weights_travel_in_their_types(checkpoints: Checkpoints, tmp_path: Path) -> None:
    archive = pack(pretrained("clip_rn50"), tmp_path, checkpoints(RN50))
    with tarfile.open(archive) as opened:
        opened.extract("clip_rn50/clip_rn50.safetensors", tmp_path, filter="data")
    packed, state = read_state(tmp_path / "clip_rn50" / "clip_rn50.safetensors"), seeded.state(RN50)
    assert packed.keys() == state.keys()
    for name, value in state.items():
        assert packed[name].dtype == value.dtype
        assert np.array_equal(packed[name], value)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"not on this machine.*--no_weights"):
        pack(pretrained("clip_rn101"), tmp_path)
    with pytest.raises(WeightsError, match=r"do not fit ViT-B/32 .*weights of mini"):
        pack(pretrained("clip_vit_b32"), tmp_path, ROOT / "modules" / "clip_mini" / "clip_mini.safetensors")
    assert list(tmp_path.iterdir()) == []
    light = pack(pretrained("clip_rn101"), tmp_path, with_weights=False)
    assert light.stat().st_size < 3_000_000
