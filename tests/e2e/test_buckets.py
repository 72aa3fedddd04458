"""`embed` from and to a bucket that is busy now and then: killed, and on Ray."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("moto", reason="of the extra [test]")

import boto3

from tests.support.killed import embedded_through_kills
from tests.support.paths import ROOT
from tests.support.s3_server import S3Server
from tests.support.stores import contents

IMAGES = 300


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """One with a bucket of small images, whose every twentieth answer is an error."""
    made = S3Server()
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    client: Any = boto3.client("s3", endpoint_url=made.address, region_name="us-east-1")
    client.create_bucket(Bucket="photos")
    client.create_bucket(Bucket="vectors")
    for number in range(IMAGES):
        file = io.BytesIO()
        Image.new("RGB", (32, 32), (number % 256, number // 256, 77)).save(file, "PNG")
        client.put_object(Bucket="photos", Key=f"all/{number:03d}.png", Body=file.getvalue())
    made.fails = lambda _: len(made.requests) % 20 == 0
    yield made
    made.stop()


def command(output: str, *options: str) -> list[str]:
    embed = ["embed", "s3://photos/all", "--output", output, "--part_size", "20", "--batch_size", "4"]
    return [sys.executable, "-m", "clip_common", *embed, *options]


@pytest.mark.slow
@pytest.mark.e2e
def test_killed_at_any_moment_each_image_is_there_once(server: S3Server) -> None:
    output = "s3://vectors/killed"
    embedded_through_kills(command(output), output, part=20, most=2, look_every=0.05, wait_most=0.3)
    assert len(contents(output)) == IMAGES


def on_ray(output: str) -> subprocess.CompletedProcess[str]:
    given = command(output, "--executor", "ray", "--quiet")
    return subprocess.run(given, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.e2e
def test_on_ray_each_image_is_there_once(server: S3Server) -> None:
    pytest.importorskip("ray", reason="of the extra [test]")
    output = "s3://vectors/ray"
    done = on_ray(output)
    assert done.returncode == 0, done.stderr
    assert f"{IMAGES} embedded" in done.stdout
    assert len(contents(output)) == IMAGES
    server.error = ("403 Forbidden", "AccessDenied")
    server.fails = lambda what: what.startswith(("PUT", "POST")) and "part-" in what
    done = on_ray("s3://vectors/locked")
    assert done.returncode == 1
    assert "clip-hub embed: s3://vectors/locked/part-00000" in done.stderr
    assert "cannot be written (access denied" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Item(" not in done.stderr  # an address in it may be signed
