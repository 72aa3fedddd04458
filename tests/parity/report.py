"""`make parity`: how far ours is from OpenAI's code, as a table.

Where torch and the package openai-clip are installed the reference runs live; elsewhere its kept outputs
(`tests/golden`) are compared with. Exit status 1 if a bound is broken.
"""

from __future__ import annotations

import sys

import numpy as np

from clip_common.config import RN50, RN101, VIT_B32, ClipConfig
from tests.parity import seeded, stages
from tests.parity.compare import Figure, compare
from tests.parity.make_golden import golden_file, run_reference
from tests.parity.ours import run_ours
from tests.parity.reference import available


def figures_for(config: ClipConfig, live: bool) -> list[Figure]:
    """Ours against the reference, over the seeded checkpoint of an architecture."""
    state = seeded.state(config)
    ours = run_ours(config, state)
    if live:
        return compare(ours, run_reference(config, state))
    sampled = {name: stages.sample(name, value) for name, value in ours.items()}
    return compare(sampled, dict(np.load(golden_file(config))))


def main() -> int:
    live = available()
    print(
        "against OpenAI's code on torch, live" if live else "against kept outputs of OpenAI's code on torch"
    )
    passed = True
    for config in (RN50, RN101, VIT_B32):
        print(f"\n{config.name:<44}{'difference':>12}{'bound':>12}")
        for figure in figures_for(config, live):
            bound = "" if figure.bound is None else f"{figure.bound:.0e}"
            print(f"  {figure.what:<42}{figure.value:12.1e}{bound:>12}{'' if figure.passed else '  BROKEN'}")
            passed = passed and figure.passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
