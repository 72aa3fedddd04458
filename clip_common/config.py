"""The models as data: architectures, their preprocessing, and where their weights come from.

Another CLIP is another `ClipConfig` and `Pretrained` here; nothing else in the package names a backbone.
Dimensions: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision",
tables 19 and 20; for clip_mini its model card in `modules/clip_mini`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .errors import RequestError

OPENAI_BASE_URL = "https://openaipublic.azureedge.net/clip/models"
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ResNetConfig:
    """A ModifiedResNet: blocks per stage, and the width of the stem's output."""

    layers: tuple[int, int, int, int]
    width: int

    @property
    def output_width(self) -> int:
        """Channels of the last stage, the width of the attention pool."""
        return self.width * 32

    @property
    def heads(self) -> int:
        """Heads of the attention pool."""
        return self.output_width // 64


@dataclass(frozen=True)
class ViTConfig:
    """A VisionTransformer: side of a patch in pixels, blocks, width."""

    patch_size: int
    layers: int
    width: int

    @property
    def heads(self) -> int:
        """Attention heads of each block."""
        return self.width // 64


@dataclass(frozen=True)
class TextConfig:
    """The text transformer, and the size of what it reads."""

    width: int
    layers: int
    context_length: int = 77
    vocab_size: int = 49408

    @property
    def heads(self) -> int:
        """Attention heads of each block."""
        return self.width // 64


@dataclass(frozen=True)
class ClipConfig:
    """One CLIP architecture: both towers and the space they share."""

    name: str
    embed_dim: int
    image_resolution: int
    vision: ResNetConfig | ViTConfig
    text: TextConfig


@dataclass(frozen=True)
class Preprocessing:
    """What an image goes through after resizing; `background` is put under transparent images."""

    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    background: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class WeightsSource:
    """A published weights file: its name, its hash, its licence and the address it is published at."""

    file: str
    sha256: str
    licence: str
    base_url: str | None = None

    @property
    def url(self) -> str | None:
        """The published address; None for weights that only travel with their module."""
        return self.address(self.base_url) if self.base_url else None

    def address(self, base_url: str) -> str:
        """The file's address below a base: OpenAI's layout has the hash as a folder."""
        return f"{base_url.rstrip('/')}/{self.sha256}/{self.file}"


@dataclass(frozen=True)
class ReferenceValues:
    """What OpenAI's weights give for known inputs, by which a copy of them can be told.

    Attributes:
        text: mean of the squared text features of "a diagram", "a dog", "a cat"; lowest and highest seen.
        image: mean of the squared image feature of `CLIP.png` of openai/CLIP.
        scores: of that image for those texts.
        tolerance: of each; they come from runs in fp16.
    """

    text: tuple[float, float]
    image: float
    scores: tuple[float, float, float] | None = None
    tolerance: float = 2e-4


@dataclass(frozen=True)
class Pretrained:
    """A hub module's record: architecture, preprocessing, weights and default labels travel together.

    Attributes:
        adaptation_rate: the learning rate that `adapt` begins with; by default that of WiSE-FT's paper.
    """

    name: str
    config: ClipConfig
    weights: WeightsSource
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    default_labels: str = "imagenet"
    default_templates: tuple[str, ...] = ("a photo of a {}.",)
    reference_values: ReferenceValues | None = None
    adaptation_rate: float = 3e-5


RN50 = ClipConfig("RN50", 1024, 224, ResNetConfig((3, 4, 6, 3), 64), TextConfig(512, 12))
RN101 = ClipConfig("RN101", 512, 224, ResNetConfig((3, 4, 23, 3), 64), TextConfig(512, 12))
VIT_B32 = ClipConfig("ViT-B/32", 512, 224, ViTConfig(32, 12, 768), TextConfig(512, 12))
MINI = ClipConfig("mini", 256, 64, ResNetConfig((1, 1, 2, 1), 32), TextConfig(192, 2))

PRETRAINED: dict[str, Pretrained] = {
    record.name: record
    for record in (
        Pretrained(
            "clip_rn50",
            RN50,
            WeightsSource(
                "RN50.pt",
                "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
                "MIT",
                OPENAI_BASE_URL,
            ),
            reference_values=ReferenceValues(text=(0.204745, 0.204893), image=0.0033531),
        ),
        Pretrained(
            "clip_rn101",
            RN101,
            WeightsSource(
                "RN101.pt",
                "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
                "MIT",
                OPENAI_BASE_URL,
            ),
            reference_values=ReferenceValues(text=(0.177382, 0.177382), image=0.0116348),
        ),
        Pretrained(
            "clip_vit_b32",
            VIT_B32,
            WeightsSource(
                "ViT-B-32.pt",
                "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
                "MIT",
                OPENAI_BASE_URL,
            ),
            reference_values=ReferenceValues(
                text=(0.255476, 0.255476), image=0.211792, scores=(0.9927937, 0.00421068, 0.00299572)
            ),
        ),
        Pretrained(
            "clip_mini",
            MINI,
            WeightsSource(
                "clip_mini.safetensors",
                "90da66d7d45c44c40d7cbef724b21695cc192bb979e13b29d4d3724ad15d9409",
                "Apache-2.0",
            ),
            # It was trained on drawings composed over a background: dropped alpha leaves black, and
            # costs five to ten points.
            preprocessing=Preprocessing(background=(255, 255, 255)),
            default_labels="pictograms",
            default_templates=("a picture of a {}",),
            adaptation_rate=3e-4,
        ),
    )
}


def pretrained(name: str) -> Pretrained:
    """The record of a module by its name.

    Raises:
        RequestError: no module has that name; the message lists those that exist.

    Example:
        >>> pretrained("clip_vit_b32").config.embed_dim
        512
    """
    try:
        return PRETRAINED[name]
    except KeyError:
        raise RequestError(f"no module is named {name!r}: there are {', '.join(PRETRAINED)}") from None
