"""What a module's record says: architecture, preprocessing, published weights, default labels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from .architectures import Activation, ClipConfig

# Names that many repositories on Hugging Face give to their weights.
HF_FILE, HF_PICKLE = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of images for a model.

    Attributes:
        mean: mean of the normalisation, RGB, in 0..1.
        std: standard deviation of the normalisation, RGB.
        background: colour under transparent images, RGB in 0..255; None ignores transparency.
        resize: "crop" scales the shorter side to the resolution and crops the centre; "squash" scales both
            sides to it, without keeping the aspect ratio.
    """

    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    background: tuple[int, int, int] | None = None
    resize: Literal["crop", "squash"] = "crop"


@dataclass(frozen=True)
class WeightsSource:
    """A published weights file: where to download it, and the settings that it requires.

    Attributes:
        file: name of the file.
        sha256: hash of the file; a file of unknown hash (None) is only loaded from disk, never downloaded.
        licence: licence of the weights.
        base_url: base address in OpenAI's layout, where the file is in a folder named by its hash.
        release: complete address, if the authors publish the file elsewhere.
        huggingface: repository on Hugging Face that has the file.
        modelscope: repository on ModelScope that has the file.
        tag: name of these weights among those of the module; open_clip's name if there is one.
        activation: the activation that the weights were trained with.
        preprocessing: the preprocessing, if it differs from the module's.
        imagenet: published zero-shot accuracy on ImageNet-1k, 0..1.
    """

    file: str
    sha256: str | None
    licence: str
    base_url: str | None = None
    release: str | None = None
    huggingface: str | None = None
    modelscope: str | None = None
    tag: str = "openai"
    activation: Activation = "quick_gelu"
    preprocessing: Preprocessing | None = None
    imagenet: float | None = None

    @property
    def url(self) -> str | None:
        """The authors' own address of the file, if there is one."""
        return self.address(self.base_url) if self.base_url else self.release

    @property
    def is_published(self) -> bool:
        """Whether the file can be downloaded from anywhere."""
        return bool(self.url or self.huggingface or self.modelscope)

    def kept_as(self, module: str) -> str:
        """The name of the file in the cache: its own, unless many repositories use the same name."""
        if self.file in (HF_FILE, HF_PICKLE):
            return f"{module}.{self.tag}.{self.file.rpartition('.')[2]}"
        return self.file

    def address(self, base_url: str) -> str:
        """The address of the file below a base address in OpenAI's layout."""
        return f"{base_url.rstrip('/')}/{self.sha256}/{self.file}"


@dataclass(frozen=True)
class ReferenceValues:
    """Expected outputs of published weights for known inputs, to verify a copy of them.

    Attributes:
        text: mean of the squared features of the module's `sample_texts`; lowest and highest seen.
        image: mean of the squared feature of an image that the authors publish.
        scores: softmax scores of that image for those texts.
        image_name: name of that image in the authors' repository.
        tolerance: tolerance of each value; they come from runs in fp16, or with weights rounded to it.
    """

    text: tuple[float, float] | None = None
    image: float | None = None
    scores: tuple[float, ...] | None = None
    image_name: str = "CLIP.png"
    tolerance: float = 2e-4


@dataclass(frozen=True)
class Pretrained:
    """The record of a module: architecture, preprocessing, weights and defaults.

    Attributes:
        name: name of the module.
        config: the architecture.
        weights: the default weights.
        other_weights: other published weights of the same architecture.
        preprocessing: preprocessing of images.
        default_labels: name of the default label set.
        default_templates: prompt templates for the default labels.
        sample_texts: texts in the language of the weights, for `weights verify`.
        reference_values: expected outputs of the default weights, if known.
        adaptation_rate: default learning rate of `adapt`; that of the WiSE-FT paper unless set.
    """

    name: str
    config: ClipConfig
    weights: WeightsSource
    other_weights: tuple[WeightsSource, ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    default_labels: str = "imagenet"
    default_templates: tuple[str, ...] = ("a photo of a {}.",)
    sample_texts: tuple[str, ...] = ("a diagram", "a dog", "a cat")
    reference_values: ReferenceValues | None = None
    adaptation_rate: float = 3e-5

    @property
    def published(self) -> tuple[WeightsSource, ...]:
        """All of the module's published weights, the default ones first."""
        return (self.weights, *self.other_weights)

    def with_settings(self, activation: Activation, preprocessing: Preprocessing) -> Pretrained:
        """A copy of the record for weights with this activation and preprocessing."""
        if activation == self.config.activation and preprocessing == self.preprocessing:
            return self
        config = replace(self.config, activation=activation)
        return replace(self, config=config, preprocessing=preprocessing, reference_values=None)

    def with_weights(self, source: WeightsSource) -> Pretrained:
        """A copy of the record with other published weights as the default."""
        if source == self.weights:
            return self
        record = self.with_settings(source.activation, source.preprocessing or self.preprocessing)
        others = tuple(other for other in self.published if other is not source)
        return replace(record, weights=source, other_weights=others, reference_values=None)
