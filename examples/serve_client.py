"""Ask a running server: `python examples/serve_client.py IMAGE --url http://127.0.0.1:8866`.

It works with `clip-hub serve clip_mini` and with `hub serving start -m clip_mini`.
"""

import argparse
import base64
import os
from pathlib import Path
from typing import Any

import requests


def main() -> None:
    """Print the labels of one image, and how long its embedding is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8866")
    parser.add_argument("--module", default="clip_mini")
    arguments = parser.parse_args()
    image = base64.b64encode(arguments.image.read_bytes()).decode()
    address = f"{arguments.url}/predict/{arguments.module}"
    key = os.environ.get("CLIP_HUB_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    def ask(body: dict) -> Any:
        reply = requests.post(address, json=body, headers=headers, timeout=60).json()
        if reply["status"] != "000":  # PaddleHub's server answers 200 to errors too
            raise SystemExit(reply["msg"])
        return reply["results"]

    for item in ask({"images": [image], "labels": ["a diagram", "a dog", "a cat"]})[0]:
        print(f"{item['score']:7.2%}  {item['label']}")
    embedding = ask({"images": [image], "task": "embed"})["images"][0]
    print(f"embedding: {len(embedding)} numbers")


if __name__ == "__main__":
    main()
