"""Features of this machine's CPU, as Linux reports them."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path


@cache
def description() -> str:
    """The kernel's description of the CPUs; empty on other systems."""
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:  # not Linux
        return ""


@cache
def features() -> frozenset[str]:
    """The instruction sets, as the kernel spells them: `avx2`, `avx512f`, `amx_bf16`."""
    lines = description().splitlines()
    line = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split())


def identity() -> str:
    """Identifies the CPU's instruction sets; part of the cache key of compiled code."""
    return " ".join(sorted(features())) or f"{platform.machine()} {platform.processor()}"


def is_amd() -> bool:
    """Whether it is an AMD CPU."""
    return "AuthenticAMD" in description()


def computes_bfloat16() -> bool:
    """Whether it has hardware support for bfloat16 matrix products."""
    return not features().isdisjoint({"amx_bf16", "avx512_bf16"})


def computes_int8() -> bool:
    """Whether it has hardware support for int8 products that is faster than float32."""
    return not features().isdisjoint({"avx512_vnni", "avx_vnni"})
