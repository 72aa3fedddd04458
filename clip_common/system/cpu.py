"""What this machine's CPU is, as Linux tells it."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path


@cache
def description() -> str:
    """The kernel's description of the CPUs; empty where there is none."""
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:  # not Linux
        return ""


@cache
def features() -> frozenset[str]:
    """Names of the instruction sets, as the kernel spells them: `avx2`, `avx512f`, `amx_bf16`."""
    lines = description().splitlines()
    line = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split())


def identity() -> str:
    """What code compiled for this CPU depends on."""
    return " ".join(sorted(features())) or f"{platform.machine()} {platform.processor()}"


def is_amd() -> bool:
    """Whether AMD made it."""
    return "AuthenticAMD" in description()


def computes_bfloat16() -> bool:
    """Whether it multiplies bfloat16 matrices in hardware."""
    return not features().isdisjoint({"amx_bf16", "avx512_bf16"})


def computes_int8() -> bool:
    """Whether it multiplies int8 in hardware faster than float32."""
    return not features().isdisjoint({"avx512_vnni", "avx_vnni"})
