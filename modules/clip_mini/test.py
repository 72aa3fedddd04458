"""The module through PaddleHub, with the weights that it carries."""

import unittest
from pathlib import Path

import numpy as np
import paddlehub as hub

PICTURE = Path(__file__).resolve().parents[2] / "examples" / "diagram.png"
TEXTS = ["a diagram", "a dog", "a cat"]


@unittest.skipUnless(PICTURE.exists(), "not in the source tree: no pictures")
class TestHubModule(unittest.TestCase):
    """`classify` and `embed` on a picture it was not trained on."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.module = hub.Module(name="clip_mini")

    def test_classify(self) -> None:
        answer = self.module.classify(paths=[str(PICTURE)], labels=TEXTS)[0]
        self.assertEqual(answer[0]["label"], "a diagram")
        self.assertAlmostEqual(sum(item["score"] for item in answer), 1, places=6)

    def test_embed(self) -> None:
        vectors = self.module.embed(paths=[str(PICTURE)], texts=TEXTS)
        self.assertEqual(vectors["images"].shape, (1, 256))
        self.assertEqual(int((vectors["texts"] @ vectors["images"][0]).argmax()), 0)
        np.testing.assert_allclose(np.linalg.norm(vectors["texts"], axis=1), 1, rtol=1e-5)


if __name__ == "__main__":
    unittest.main()
