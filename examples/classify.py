"""Which label fits each image? `python examples/classify.py IMAGE... --labels "a dog,a cat"`."""

import argparse

from clip_common import ClipError, Predictor
from clip_common.config import PRETRAINED


def main() -> None:
    """Print the three best labels of each image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--labels", help="separated by commas; left out, the model's own")
    parser.add_argument("--module", choices=PRETRAINED, default="clip_mini")
    arguments = parser.parse_args()
    labels = arguments.labels.split(",") if arguments.labels else None
    clip = Predictor(arguments.module)
    try:
        answers = clip.classify(paths=arguments.images, labels=labels, top_k=3)
    except ClipError as error:  # it names the image, the fault and what to do
        raise SystemExit(str(error)) from None
    for path, answer in zip(arguments.images, answers, strict=True):
        print(path)
        for item in answer:
            print(f"  {item['score']:7.2%}  {item['label']}")


if __name__ == "__main__":
    main()
