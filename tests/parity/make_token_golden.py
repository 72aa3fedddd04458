"""Run OpenAI's tokenizer over the generated strings, and keep its ids.

    python -m tests.parity.make_token_golden      # where the package openai-clip is installed

writes `tests/golden/tokens.npz`, against which the default test run compares.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np

from tests.parity.reference import reference_tokenizer
from tests.parity.strings import strings

GOLDEN = Path(__file__).parent.parent / "golden" / "tokens.npz"


def main() -> None:
    tokenizer = reference_tokenizer()
    encoded = [tokenizer.encode(text) for text in strings()]
    lengths = np.array([len(ids) for ids in encoded], np.uint16)
    np.savez_compressed(GOLDEN, ids=np.array([*chain(*encoded)], np.uint16), lengths=lengths)
    print(GOLDEN, GOLDEN.stat().st_size, "bytes,", len(encoded), "strings,", int(lengths.sum()), "ids")


if __name__ == "__main__":
    main()
