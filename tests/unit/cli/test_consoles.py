"""Output on consoles that are not UTF-8, of file names that are not UTF-8 either: nothing is lost."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_common.cli.reporting import emit
from clip_common.evaluation.evaluate import Figures
from clip_common.evaluation.report import write
from clip_common.search.hits import Hit
from clip_common.search.query import as_json, as_table
from clip_common.system.file_names import encodable, read_shown_name, shown_name
from clip_common.system.output import save_figure
from clip_common.visualize import draw_answer, draw_contact_sheet
from tests.support.paths import EXAMPLES, ROOT

NOT_UTF8 = os.fsdecode(b"caf\xe9.png")
NAMES = ["a.png", NOT_UTF8, "照片.png", "näh.png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "images"
    made.mkdir()
    for name in NAMES:
        (made / name).write_bytes((EXAMPLES / "dog.png").read_bytes())
    return made


def classify(folder: Path, *argv: str, encoding: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "clip_common", "classify", str(folder), *argv],
        cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C"},
        capture_output=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "utf-8:strict"])
def test_classify_answers_on_every_console(folder: Path, encoding: str) -> None:
    done = classify(folder, "--labels", "狗,café,a dog", encoding=encoding)
    assert done.returncode == 0, done.stderr.decode()
    codec = encoding.partition(":")[0]
    shown = done.stdout.decode(codec)
    for name in NAMES:
        assert str(folder / encodable(shown_name(name), codec)) in shown
    assert shown.count("a dog") == len(NAMES)
    assert "caf\\xe9.png" in shown


def test_json_is_ascii_and_gives_names_back(folder: Path) -> None:
    done = classify(folder, "--labels", "狗,a dog", "--format", "json", encoding="ascii")
    document = json.loads(done.stdout.decode("ascii"))
    assert sorted(Path(result["path"]).name for result in document["results"]) == sorted(NAMES)


def test_what_a_console_lacks_is_escaped() -> None:
    for encoding in ("ascii", "latin-1", "gbk", "utf-8"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding, errors="strict", newline="\n")
        emit("é 狗 \udce9", stream)
        stream.flush()
        written = stream.buffer.getvalue().decode(encoding)
        assert written.endswith("\\xe9\n")
        assert read_shown_name(written) == "é 狗 \udce9\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk"])
def test_what_is_found_is_printed_on_every_console(encoding: str) -> None:
    hit = Hit("照片/caf\\xe9.png", 0.5, 8, 8, "näh")
    stream = io.TextIOWrapper(io.BytesIO(), encoding, errors="strict")
    emit(as_table([hit]), stream)
    stream.flush()
    assert encodable(hit.path, encoding) in stream.buffer.getvalue().decode(encoding)
    assert json.loads(as_json([hit]).encode("ascii"))["results"][0]["caption"] == "näh"


def test_figures_of_names_that_are_not_utf8(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8))
    save_figure(draw_answer(image, [{"label": NOT_UTF8, "score": 1.0}], NOT_UTF8), tmp_path / "answer.png")
    save_figure(draw_contact_sheet([(image, NOT_UTF8)], NOT_UTF8), tmp_path / "sheet.png")
    figures = Figures({"top-1": 1.0}, {NOT_UTF8: "bad"}, np.eye(2), None, [NOT_UTF8, "b"])
    write({"zero-shot": figures}, tmp_path / "report")
    document = json.loads((tmp_path / "report" / "figures.json").read_text("ascii"))
    assert document["zero-shot"]["errors"] == {NOT_UTF8: "bad"}
    assert (tmp_path / "report" / "zero-shot_confusion.png").exists()
