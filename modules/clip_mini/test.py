"""The module through PaddleHub; skipped where its weights are not on this machine."""

import unittest
from pathlib import Path
from typing import Any

import numpy as np
import paddlehub as hub

from clip_common.config import pretrained
from clip_common.weights.locate import find_local

NAME = "clip_mini"
IMAGE = Path(__file__).resolve().parents[2] / "examples" / "diagram.png"
TEXTS = ["a diagram", "a dog", "a cat"]


@unittest.skipIf(find_local(pretrained(NAME)) is None, f"the weights of {NAME} are not on this machine")
@unittest.skipUnless(IMAGE.exists(), "not in the source tree: no images")
class TestHubModule(unittest.TestCase):
    """`classify` and `embed`, and that they agree."""

    module: Any

    @classmethod
    def setUpClass(cls) -> None:
        cls.module = hub.Module(name=NAME)

    def test_embed(self) -> None:
        embeddings = self.module.embed(paths=[str(IMAGE)], texts=TEXTS)
        self.assertEqual(embeddings["images"].shape, (1, 512))
        self.assertEqual(embeddings["texts"].shape, (3, 512))
        np.testing.assert_allclose(np.linalg.norm(embeddings["texts"], axis=1), 1, rtol=1e-5)

    def test_classify_is_the_softmax_of_the_cosines(self) -> None:
        answer = self.module.classify(paths=[str(IMAGE)], labels=TEXTS)[0]
        embeddings = self.module.embed(paths=[str(IMAGE)], texts=TEXTS)
        scale = np.exp(self.module.model.logit_scale.numpy())
        scores = np.exp(scale * (embeddings["images"] @ embeddings["texts"].T)[0])
        expected = dict(zip(TEXTS, scores / scores.sum(), strict=True))
        for item in answer:
            self.assertAlmostEqual(item["score"], float(expected[item["label"]]), places=4)

    def test_a_diagram_is_a_diagram(self) -> None:
        answer = self.module.classify(paths=[str(IMAGE)], labels=TEXTS)[0]
        self.assertEqual(answer[0]["label"], TEXTS[0])
        self.assertAlmostEqual(sum(item["score"] for item in answer), 1, places=6)


if __name__ == "__main__":
    unittest.main()
