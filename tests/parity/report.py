"""`make parity`: how far ours is from the reference code, as a table.

Where torch and the reference's package are installed it runs live; elsewhere its kept outputs
(`tests/golden`) are compared with. Exit status 1 if a bound is broken.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from clip_common.config import ClipConfig
from clip_common.weights.weights_file import write_safetensors
from tests.parity import seeded, stages
from tests.parity.architectures import SHALLOW, WHOLE
from tests.parity.compare import Figure, compare
from tests.parity.make_golden import available, golden_file, run_reference
from tests.parity.ours import run_engine, run_ours


def default_engine_figures(config: ClipConfig) -> list[Figure]:
    """The engine that users get against the reference's kept outputs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seeded.safetensors"
        write_safetensors(seeded.state(config), path, {})
        ours = run_engine(config, path)
    golden = np.load(golden_file(config))
    return compare(ours, {name: golden[name] for name in ours})


def figures_for(config: ClipConfig, live: bool) -> list[Figure]:
    """Ours against the reference, over the seeded checkpoint of an architecture."""
    state = seeded.state(config)
    ours = run_ours(config, state)
    if live:
        return compare(ours, run_reference(config, state))
    sampled = {name: stages.sample(name, value) for name, value in ours.items()}
    return compare(sampled, dict(np.load(golden_file(config))))


def _named(prefix: str, figures: list[Figure]) -> list[Figure]:
    return [Figure(prefix + figure.what, figure.value, figure.bound) for figure in figures]


def main() -> int:
    passed = True
    for config in (*WHOLE, *SHALLOW):
        live = available(config)
        print(f"\n{config.name + (', live' if live else ''):<54}{'difference':>12}{'bound':>12}")
        figures = figures_for(config, live)
        if config in WHOLE:
            figures += _named("default engine, ", default_engine_figures(config))
        for figure in figures:
            bound = "" if figure.bound is None else f"{figure.bound:.0e}"
            print(f"  {figure.what:<52}{figure.value:12.1e}{bound:>12}{'' if figure.passed else '  BROKEN'}")
            passed = passed and figure.passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
