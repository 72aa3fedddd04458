"""Which images fit some words? `python examples/search.py FOLDER "a red apple"`.

For more images than fit in memory, see docs/embedding-and-search.md.
"""

import argparse
from pathlib import Path

import numpy as np

from clip_common import ClipError, Predictor
from clip_common.preprocessing.image import IMAGE_SUFFIXES


def main() -> None:
    """Print the five best images of a folder, each with its cosine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("words")
    parser.add_argument("--module", default="clip_mini", help="for Chinese words: clip_cn_vit_b16")
    arguments = parser.parse_args()
    try:
        paths = sorted(path for path in arguments.folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        embeddings = Predictor(arguments.module).embed(paths=paths, texts=[arguments.words])
    except (ClipError, OSError) as error:
        raise SystemExit(str(error)) from None
    cosines = embeddings["images"] @ embeddings["texts"][0]  # [n, d] @ [d] -> [n]
    for place in np.argsort(-cosines)[:5]:
        print(f"{cosines[place]:.3f}  {paths[place].name}")


if __name__ == "__main__":
    main()
