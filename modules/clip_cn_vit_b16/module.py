"""Chinese-CLIP with the backbone ViT-B/16, as a PaddleHub module. What it does is in `clip_common`."""

from functools import wraps
from typing import Any

from paddlehub.module.module import moduleinfo, runnable, serving

from clip_common.config import pretrained
from clip_common.hub import ClipModule


@moduleinfo(
    name="clip_cn_vit_b16",
    version="1.2.0",
    type="cv/image_text_matching",
    author="clip-hub",
    author_email="",
    summary="Chinese-CLIP, ViT-B/16: zero-shot classification and image-text embedding in Chinese.",
)
class ClipCnViTB16(ClipModule):
    """Zero-shot classification and embedding with Chinese-CLIP, backbone ViT-B/16."""

    record = pretrained("clip_cn_vit_b16")

    # PaddleHub erases the signature and docstring of what it decorates; `wraps` brings them back.

    @wraps(ClipModule.classify)
    @serving
    def classify(self, *args: Any, **kwargs: Any) -> Any:
        return super().classify(*args, **kwargs)

    @wraps(ClipModule.embed)
    @serving
    def embed(self, *args: Any, **kwargs: Any) -> Any:
        return super().embed(*args, **kwargs)

    # PaddleHub calls only the last method marked for serving, so this one tells the two above apart.
    @wraps(ClipModule.predict)
    @serving
    def predict(self, /, **body: Any) -> Any:
        return super().predict(**body)

    @wraps(ClipModule.run_cmd)
    @runnable
    def run_cmd(self, argvs: list[str]) -> str:
        return super().run_cmd(argvs)
