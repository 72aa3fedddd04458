"""Clusters of stored images, their names, and `clip-hub clusters`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clip_common.cli.main import main
from clip_common.embedding.items import Item
from clip_common.embedding.origin import Origin
from clip_common.embedding.store import Row, Store
from clip_common.predictor import Predictor
from clip_common.zero_shot.scoring import l2_normalize
from tests.support.paths import EXAMPLES

pytest.importorskip("sklearn")

LABELS = ("a dog", "a bicycle", "a tree")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve embeddings around those of three labels; there are no images."""
    predictor = Predictor("clip_mini")
    store = Store(tmp_path / "vectors")
    rng = np.random.default_rng(0)
    texts = predictor.embed(texts=list(LABELS))["texts"]
    places = [0] * 6 + [1] * 4 + [2] * 2
    noise = 0.2 * l2_normalize(rng.normal(size=(len(places), texts.shape[1])))
    rows = [
        Row(Item(f"{LABELS[place][2:]}_{i}.jpg", "stamp"), vector, 10, 10)
        for i, (place, vector) in enumerate(zip(places, l2_normalize(texts[places] + noise), strict=True))
    ]
    store.write_part(0, rows, Origin.of(predictor))
    return tmp_path / "vectors"


def test_clusters_have_the_names_of_what_they_show(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["clusters", str(folder), "--clusters", "3", "--labels", ",".join(("a cat", *LABELS))]
    assert main([*command, "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["images"] == 12
    assert [cluster["labels"][0]["label"] for cluster in answer["clusters"]] == list(LABELS)
    for cluster, label, count in zip(answer["clusters"], LABELS, (6, 4, 2), strict=True):
        assert len(cluster["labels"]) == 3
        assert [label[2:] in member["path"] for member in cluster["members"]] == [True] * count
        cosines = [member["cosine"] for member in cluster["members"]]
        assert cosines == sorted(cosines, reverse=True)
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["6", "4", "2"]
    assert lines[0].split("  ")[-1].startswith("dog_")
    assert main([*command, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == answer


def test_the_module_and_its_labels_are_those_of_the_store(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["clusters", str(folder), "--clusters", "1"]
    assert main([*command, "--output_dir", str(tmp_path / "sheet")]) == 0
    assert (tmp_path / "sheet" / "clusters.png").stat().st_size > 0
    capsys.readouterr()
    assert main(["clusters", str(folder), "--clusters", "13"]) == 1
    assert "--clusters is 13, and the embeddings are of only 12 different images" in capsys.readouterr().err
    other = Store(tmp_path / "other")
    row = Row(Item(str(EXAMPLES / "dog.png"), "stamp"), np.ones(2, np.float32), 1, 1)
    other.write_part(0, [row], Origin("clip_mini", "0" * 64, 2))
    assert main(["clusters", str(other.folder), "--clusters", "1"]) == 1
    assert "give the --weights that `embed` used" in capsys.readouterr().err
