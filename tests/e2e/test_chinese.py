"""Chinese at every door: names of files and classes, labels, templates, words to search for, captions.

A tiny Chinese CLIP with the whole vocabulary goes through the commands in this process; the module
clip_cn_rn50, over seeded weights, through PaddleHub's doors and out of its archive.
"""

from __future__ import annotations

import base64
import csv
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import requests
from PIL import Image

from clip_common import predictor as predictors
from clip_common.cli.main import main
from clip_common.config import CN_RN50, PRETRAINED, BertConfig, Pretrained
from clip_common.engines.select import Choice
from clip_common.hub.pack import pack
from clip_common.predictor import Predictor
from clip_common.text.prompts import read_lines
from clip_common.version import __version__
from clip_common.weights.readers import read_state
from clip_common.weights.weights_file import write_safetensors
from tests.parity import seeded
from tests.parity.tiny import TINY_CHINESE_VIT
from tests.support.checkpoints import Checkpoints
from tests.support.elsewhere import run_elsewhere
from tests.support.processes import free_port, hub_run, start_server, stop_server

_BERT = cast(BertConfig, TINY_CHINESE_VIT.text)
_TEXT = replace(_BERT, context_length=52, vocab_size=21128, positions=52)
TINY = replace(TINY_CHINESE_VIT, name="tiny Chinese", text=_TEXT)
COLOURS = {"红色": (220, 30, 30), "绿色": (30, 200, 40), "蓝色": (30, 40, 220)}
LONG = "一只猫和一只狗在草地上奔跑，" * 10


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a Chinese module whose weights are found without being named."""
    name = "clip_cn_tiny"
    record = replace(PRETRAINED["clip_cn_rn50"], name=name, config=TINY, adaptation_rate=1e-2)
    monkeypatch.setitem(PRETRAINED, name, record)
    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path / "缓存"))
    # Another process, which compiles, knows the modules of the package alone.
    monkeypatch.setattr(predictors, "choose", lambda _, precision: Choice("paddle", precision, "tiny"))
    (tmp_path / "缓存" / "weights").mkdir(parents=True)
    note = {"layout": "openai", "module": name}
    write_safetensors(seeded.state(TINY), tmp_path / "缓存" / "weights" / f"{name}.safetensors", note)
    return name


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder per class, all names Chinese."""
    rng = np.random.default_rng(0)
    for colour, rgb in COLOURS.items():
        folder = tmp_path / "照片" / colour
        folder.mkdir(parents=True)
        for number in range(5):
            noise = rng.integers(-25, 25, (24, 32, 3))
            Image.fromarray((noise + rgb).clip(0, 255).astype("uint8")).save(folder / f"第{number}张.png")
    return tmp_path / "照片"


def run(capsys: pytest.CaptureFixture[str], *argv: object, status: int = 0) -> str:
    """What a command prints; its warnings and errors where it is to fail."""
    capsys.readouterr()
    assert main(list(map(str, argv))) == status
    said = capsys.readouterr()
    return said.err if status else said.out


def captions(photos: Path, encoding: str = "utf-8") -> Path:
    """A table of images with captions."""
    table = photos.parent / "说明.csv"
    with table.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file)
        writer.writerow(["path", "caption"])
        for image in sorted(photos.rglob("*.png")):
            writer.writerow(
                [image.relative_to(photos.parent), f"一张{image.parent.name}的图片，{image.stem}"]
            )
    return table


def test_embed_index_search(
    tiny: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    vectors, index = tmp_path / "向量", tmp_path / "照片.索引"
    said = run(capsys, "embed", captions(photos, "gb18030"), "--output", vectors, "--module", tiny)
    assert "15 embedded" in said and "0 failed" in said
    run(capsys, "index", vectors, "--index", index)
    predictor = Predictor(tiny)
    found = predictor.embed(paths=sorted(photos.rglob("*.png")), texts=["一张红色的图片"])
    best = sorted((found["images"] @ found["texts"].T)[:, 0], reverse=True)
    search = ["search", "一张红色的图片", "--index", index, "--module", tiny, "--format", "json"]
    hits = json.loads(run(capsys, *search, "--top_k", 3, "--output_dir", tmp_path / "结果"))["results"]
    np.testing.assert_allclose([hit["score"] for hit in hits], best[:3], atol=1e-5)
    assert all(hit["caption"].startswith("一张") and Path(hit["path"]).is_file() for hit in hits)
    with Image.open(tmp_path / "结果" / "search.png") as sheet:
        assert min(sheet.size) > 200
    hits = json.loads(run(capsys, *search, "--path", "*/绿色/第*"))["results"]
    assert len(hits) == 5 and {Path(hit["path"]).parent.name for hit in hits} == {"绿色"}
    assert "第0张.png" in run(capsys, *search[:-2], "--path", "*第0张*")
    words = ["红色的图片", "-", "绿色的图片", "+", "第0张^0.5", *search[2:]]
    assert len(json.loads(run(capsys, "search", *words))["results"]) == 10
    assert "52" in run(capsys, "search", LONG, *search[2:], status=1)


def test_classify(
    tiny: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    """Labels between Chinese commas, in a file as an editor on Windows saves it, and the module's own."""
    image = photos / "红色" / "第0张.png"
    classify = ["classify", image, "--module", tiny, "--format", "json"]

    def labels(*options: object) -> dict[str, float]:
        (result,) = json.loads(run(capsys, *classify, *options))["results"]
        return {item["label"]: item["score"] for item in result["labels"]}

    typed = labels("--labels", "红色的方块，绿色的方块、蓝色的方块")
    assert set(typed) == {"红色的方块", "绿色的方块", "蓝色的方块"}
    (tmp_path / "标签.txt").write_bytes("红色的方块\r\n绿色的方块\r\n蓝色的方块\r\n".encode("gb18030"))
    assert labels("--labels_file", tmp_path / "标签.txt") == typed
    assert "read as GB18030" in caplog.text
    prompted = labels("--labels", "红色,绿色,蓝色", "--templates", "zh")
    assert set(prompted) == set(COLOURS) and set(prompted.values()) != set(typed.values())
    assert set(labels()) < set(read_lines("everyday_names_zh.txt"))
    assert "一张{}的照片" in str(Predictor(tiny).prompts(None, None).templates)
    assert "the limit is 52" in run(capsys, *classify, "--labels", f"猫,{LONG.replace('，', '')}", status=1)
    figures = tmp_path / "图"
    shown = ["--labels", "红色,绿色", "--visualization", "--output_dir", figures]
    assert run(capsys, *classify[:-2], *shown).splitlines()[0] == str(image)
    assert [file.name for file in figures.iterdir()] == ["0001_第0张.png"]


def test_evaluate(tiny: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "报告"
    said = run(capsys, "evaluate", photos, "--module", tiny, "--output_dir", report)
    assert "| zero-shot | classes | 3 |" in said and (report / "zero-shot_confusion.png").is_file()
    table = captions(photos, "utf-16")
    assert "captions | 15" in run(capsys, "evaluate", table, "--retrieval", "--module", tiny)


def test_evaluate_a_usual_data_set_in_chinese(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3 * 32 * 32), np.uint8)
    (tmp_path / "test_batch.bin").write_bytes(
        b"".join(bytes([i]) + row.tobytes() for i, row in enumerate(pixels))
    )
    (tmp_path / "batches.meta.txt").write_text("airplane\nautomobile\nbird\n")
    (tmp_path / "名称.txt").write_text("飞机\n汽车\n鸟\n", "utf-8")
    names = ["--classes_file", tmp_path / "名称.txt", "--templates", "zh"]
    assert "| images | 3 |" in run(capsys, "evaluate", f"cifar10:{tmp_path}", "--module", tiny, *names)


def test_adapt_to_classes_and_classify(
    tiny: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "微调"
    options = ["--epochs", 12, "--batch_size", 12, "--held_out", 0.2]
    said = run(capsys, "adapt", photos, "--module", tiny, "--output", folder, *options)
    adapted = folder / "adapted.safetensors"
    assert str(adapted) in said
    for image in sorted(photos.rglob("第4张.png")):
        command = ["classify", image, "--module", tiny, "--weights", adapted, "--format", "json"]
        (result,) = json.loads(run(capsys, *command))["results"]
        assert result["labels"][0]["label"] == image.parent.name
        assert {item["label"] for item in result["labels"]} == set(COLOURS)
    assert "红色" in (folder / "figures.json").read_text("utf-8")


def test_a_cache_of_images_and_classify(
    tiny: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "缓存"
    run(capsys, "adapt", photos, "--head", "cache", "--module", tiny, "--output", folder, "--held_out", 0.2)
    for image in sorted(photos.rglob("第4张.png")):
        given = ["--module", tiny, "--weights", folder / "adapted.safetensors", "--format", "json"]
        (result,) = json.loads(run(capsys, "classify", image, *given))["results"]
        assert result["labels"][0]["label"] == image.parent.name
        assert {item["label"] for item in result["labels"]} == set(COLOURS)


def test_adapt_to_captions(
    tiny: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "微调"
    options = ["--epochs", 1, "--batch_size", 4, "--held_out", 0.3, "--alpha", 1]
    run(capsys, "adapt", captions(photos), "--module", tiny, "--output", folder, *options)
    before, after = seeded.state(TINY), read_state(folder / "adapted.safetensors")
    assert {name: value.dtype for name, value in after.items()} == {n: v.dtype for n, v in before.items()}
    for name in ("bert.encoder.layer.1.attention.self.query.weight", "visual.conv1.weight"):
        assert not np.array_equal(before[name], after[name])
    Predictor(tiny, folder / "adapted.safetensors").embed(texts=["一张红色的图片"])


def test_a_caption_that_is_too_long_is_said_before_any_image_is_read(
    tiny: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(Predictor, "image_features", None)
    table = captions(photos)
    table.write_text(table.read_text("utf-8").replace("第0张\n", f"{LONG}\n"), "utf-8")
    assert "the limit is 52" in run(capsys, "evaluate", table, "--retrieval", "--module", tiny, status=1)
    adapt = ["adapt", table, "--module", tiny, "--output", tmp_path / "run", "--held_out", 0.3]
    assert "the limit is 52" in run(capsys, *adapt, status=1)


def test_weights_are_verified_in_chinese(
    tiny: str, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = photos / "红色" / "第0张.png"
    said = run(capsys, "weights", "verify", tiny, "--image", image)
    assert (
        "scores of 第0张.png for ['杰尼龟', '妙蛙种子', '小火龙', '皮卡丘']" in said and "DIFFERS" not in said
    )
    known = PRETRAINED["clip_cn_vit_b16"].reference_values
    monkeypatch.setitem(PRETRAINED, tiny, replace(PRETRAINED[tiny], reference_values=known))
    assert main(["weights", "verify", tiny, "--image", str(image)]) == 1
    said = capsys.readouterr().out
    assert "DIFFERS scores of" in said and "0.9436829 for pokemon.jpeg" in said


# --- PaddleHub's doors, with a module of the package ----------------------------------------------------


@pytest.fixture(scope="module")
def weights(checkpoints: Checkpoints) -> Path:
    return checkpoints(CN_RN50)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("图片") / "照片.png"
    seeded.image().save(path)
    return path


@pytest.fixture(scope="module")
def expected(weights: Path, image: Path) -> dict[str, float]:
    return scores(Predictor("clip_cn_rn50", weights).classify(paths=[image], labels=seeded.CHINESE_LABELS)[0])


def scores(answer: list[Any]) -> dict[str, float]:
    return {item["label"]: item["score"] for item in answer}


@pytest.mark.e2e
def test_hub_run(weights: Path, image: Path, expected: dict[str, float], hub_home: Path) -> None:
    done = hub_run(
        "clip_cn_rn50", "--input_path", str(image), "--labels", "，".join(seeded.CHINESE_LABELS),
        "--weights", str(weights), "--format", "json", cwd=image.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert scores(json.loads(done.stdout)["results"][0]["labels"]) == pytest.approx(expected, abs=1e-5)


@pytest.fixture(scope="module")
def server(weights: Path, hub_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("serving"), free_port()
    init = {"version": __version__, "weights": str(weights)}
    modules = {"clip_cn_rn50": {"init_args": init, "predict_args": {}}}
    settings = {"modules_info": modules, "port": port, "use_multiprocess": False}
    (folder / "config.json").write_text(json.dumps(settings))
    process = start_server(["-c", str(folder / "config.json")], port, folder / "log.txt")
    yield f"http://127.0.0.1:{port}/predict/clip_cn_rn50"
    stop_server(process)


@pytest.mark.e2e
def test_hub_serving(server: str, image: Path, expected: dict[str, float]) -> None:
    encoded = base64.b64encode(image.read_bytes()).decode()
    reply = requests.post(server, json={"images": [encoded], "labels": seeded.CHINESE_LABELS}, timeout=240)
    assert scores(reply.json()["results"][0]) == pytest.approx(expected, abs=1e-5)
    for body, words in (
        ({"texts": [LONG]}, "the limit is 52"),
        ({"images": [encoded], "labels": ["猫", "猫"]}, "label '猫' is given twice"),
        ({"images": [encoded], "labels": ["猫"], "templates": "一张照片"}, "template '一张照片' has no {}"),
    ):
        reply = requests.post(server, json=body, timeout=240)
        assert reply.json()["status"] == "101" and words in reply.json()["msg"]


@pytest.mark.e2e
def test_an_archive_answers_where_this_repository_is_not(
    weights: Path, image: Path, expected: dict[str, float], tmp_path: Path
) -> None:
    """Its vocabulary, labels and templates travel with it; the weights are named."""
    record: Pretrained = PRETRAINED["clip_cn_rn50"]
    with tarfile.open(pack(record, tmp_path, with_weights=False, name="my_chinese")) as archive:
        archive.extractall(tmp_path, filter="data")
    code = """
import json, sys
import paddlehub as hub
module = hub.Module(directory=sys.argv[1], weights=sys.argv[2], engine="paddle")
answer = module.classify(paths=[sys.argv[3]], labels=sys.argv[4:])[0]
print(json.dumps([answer, module.predictor.prompts(None, "zh").texts()[:2]]))
"""
    module = str(tmp_path / "my_chinese")
    said = run_elsewhere(code, module, str(weights), str(image), *seeded.CHINESE_LABELS, cwd=tmp_path)
    answer, texts = json.loads(said.splitlines()[-1])
    assert scores(answer) == pytest.approx(expected, abs=1e-5)
    assert texts == [template.replace("{}", "猫") for template in read_lines("templates_zh.txt")[:2]]
