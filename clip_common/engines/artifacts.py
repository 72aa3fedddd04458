"""The folder of compiled towers: one main file per tower, and a manifest with hashes and the logit scale."""

from __future__ import annotations

import json
from pathlib import Path

from ..system.cache import sha256_of

MANIFEST = "manifest.json"
NO_ROOM = 74
"""Exit status of the process that compiles if the disk is full; EX_IOERR of sysexits.h."""


def file_of(tower: str) -> str:
    """Name of the main file of a tower, "image" or "text"; a runtime may add files with longer names."""
    return f"{tower}.compiled"


def logit_scale(folder: Path) -> float:
    """The logit scale of the weights that a folder was compiled from."""
    return json.loads((folder / MANIFEST).read_text("utf-8"))["logit_scale"]


def is_whole(folder: Path) -> bool:
    """Whether both towers are complete and undamaged, checked by the hash of every file."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        files = manifest["files"]
        towers = {file_of("image"), file_of("text")}
        if not isinstance(manifest["logit_scale"], float) or not towers <= files.keys():
            return False
        return all(sha256_of(folder / name) == sha256 for name, sha256 in files.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False
