"""Which images fit some words? `python examples/search.py FOLDER "a red apple"`.

For more images than fit in memory, see docs/embedding-and-search.md.
"""

import sys
from pathlib import Path

import numpy as np

from clip_common import Predictor
from clip_common.preprocessing.image import IMAGE_SUFFIXES


def main() -> None:
    """Print the five best images of a folder, each with its cosine."""
    folder, words = Path(sys.argv[1]), sys.argv[2]
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    clip = Predictor("clip_mini")
    embeddings = clip.embed(paths=paths, texts=[words])
    cosines = embeddings["images"] @ embeddings["texts"][0]  # [n, d] @ [d] -> [n]
    for place in np.argsort(-cosines)[:5]:
        print(f"{cosines[place]:.3f}  {paths[place].name}")


if __name__ == "__main__":
    main()
