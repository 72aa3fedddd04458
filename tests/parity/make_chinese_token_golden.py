"""Run cn-clip's tokenizer over the generated strings, and keep a checksum of each string's ids.

    python -m tests.parity.make_chinese_token_golden      # where the packages cn-clip and six are installed

writes `tests/golden/chinese_tokens.npz`, against which the default test run compares.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.parity.chinese_reference import reference_tokenizer
from tests.parity.chinese_strings import chinese_strings

GOLDEN = Path(__file__).parent.parent / "golden" / "chinese_tokens.npz"


def checksum(ids: Sequence[int]) -> int:
    """Of a string's ids: kept in their place, since the ids themselves take ten times the room."""
    return zlib.crc32(np.array(ids, "<u2").tobytes())


def main() -> None:
    tokenizer = reference_tokenizer()
    encoded = [tokenizer.encode(text) for text in chinese_strings()]
    np.savez_compressed(
        GOLDEN,
        checksums=np.array([checksum(ids) for ids in encoded], np.uint32),
        lengths=np.array([len(ids) for ids in encoded], np.uint16),
    )
    print(GOLDEN, GOLDEN.stat().st_size, "bytes,", len(encoded), "strings,", sum(map(len, encoded)), "ids")


if __name__ == "__main__":
    main()
