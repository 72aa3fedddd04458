"""The chart of the benchmarks: every result of a CPU in one panel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.bench import table
from benchmarks.chart import RESULTS, by_cpu, cpu_of, draw


def write(folder: Path, name: str, seconds: dict[str, dict[str, list[float]]]) -> None:
    (folder / name).mkdir()
    (folder / name / "results.json").write_text(json.dumps({"seconds": seconds}))


def test_folders_of_one_cpu_are_one_panel_and_the_quieter_run_counts(tmp_path: Path) -> None:
    cell = "ViT-B/32, image tower, batch 8"
    write(tmp_path, "amd_zen4", {cell: {"ours": [1.0, 9.0, 2.0], "torch": [4.0]}})
    write(tmp_path, "amd_zen4_again", {cell: {"ours": [1.5], "torch": [3.0]}})
    write(tmp_path, "intel_family6_model143", {"first call": {"ours": [8.0]}})
    found = by_cpu(tmp_path)
    assert found["AMD Zen 4"] == {cell: {"ours": 1.5, "torch": 3.0}}
    assert found["INTEL Family 6"] == {"first call": {"ours": 8.0}}
    draw(found, tmp_path / "chart.png")  # of the other there is no image encoder to show
    with Image.open(tmp_path / "chart.png") as image:
        assert image.width > 900


@pytest.mark.parametrize(("folder", "cpu"), [("amd_zen1", "AMD Zen 1"), ("amd_zen4_photos", "AMD Zen 4")])
def test_a_folder_is_named_after_its_cpu(folder: str, cpu: str) -> None:
    assert cpu_of(folder) == cpu


def test_the_kept_results_are_drawn(tmp_path: Path) -> None:
    found = by_cpu(RESULTS)
    assert {"AMD Zen 1", "AMD Zen 4"} <= found.keys()
    draw(found, tmp_path / "new" / "chart.png")
    assert (tmp_path / "new" / "chart.png").stat().st_size > 10_000


def test_a_cell_without_peers_has_no_ratio() -> None:
    cells = {"x, image tower, batch 8": {"ours": [1.0], "torch": [2.0]}, "first call": {"ours": [8.0]}}
    lines = table(cells).splitlines()
    assert lines[2] == "| x, image tower, batch 8 | 1000.0 | 2000.0 | 2.00 |"
    assert lines[3] == "| first call | 8000.0 |  |  |"
    assert lines[-1].endswith("2.00")
    assert "mean" not in table({"first call": {"ours": [8.0]}})
