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
    """How an image becomes what the model sees.

    Attributes:
        resize: "crop" brings the shorter side to the resolution and keeps the centre; "squash" brings both
            sides to it, whatever the image's aspect.
        background: what is put under transparent images.
    """

    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    background: tuple[int, int, int] | None = None
    resize: Literal["crop", "squash"] = "crop"


@dataclass(frozen=True)
class WeightsSource:
    """A published weights file, where it is to be had, and what it must be run with.

    Attributes:
        sha256: None where it is not known: such a file is loaded from disk and never downloaded.
        base_url: a folder in OpenAI's layout, in which the file is in a folder of its hash.
        release: the file's whole address, where its authors publish it elsewhere.
        huggingface: a repository on Hugging Face that has the file.
        modelscope: the same on ModelScope.
        tag: what users call it among the module's weights: open_clip's name for it, where that has one.
        activation: what it was trained with.
        preprocessing: where it differs from the module's own.
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
        """The address at its authors', if they have one of their own."""
        return self.address(self.base_url) if self.base_url else self.release

    @property
    def is_published(self) -> bool:
        """Whether there is an address to take the file from."""
        return bool(self.url or self.huggingface or self.modelscope)

    def kept_as(self, module: str) -> str:
        """The file's name in the cache: its own, or one that tells it from others of the same name."""
        if self.file in (HF_FILE, HF_PICKLE):
            return f"{module}.{self.tag}.{self.file.rpartition('.')[2]}"
        return self.file

    def address(self, base_url: str) -> str:
        """The file's address below a base: OpenAI's layout has the hash as a folder."""
        return f"{base_url.rstrip('/')}/{self.sha256}/{self.file}"


@dataclass(frozen=True)
class ReferenceValues:
    """What published weights give for known inputs, by which a copy of them can be told.

    Attributes:
        text: mean of the squared features of the module's `sample_texts`; lowest and highest seen.
        image: mean of the squared feature of an image that the authors publish.
        scores: of that image for those texts.
        image_name: that image, in the authors' repository.
        tolerance: of each; they come from runs in fp16, or with weights rounded to it.
    """

    text: tuple[float, float] | None = None
    image: float | None = None
    scores: tuple[float, ...] | None = None
    image_name: str = "CLIP.png"
    tolerance: float = 2e-4


@dataclass(frozen=True)
class Pretrained:
    """A hub module's record: architecture, preprocessing, weights and default labels travel together.

    Attributes:
        weights: those that are meant where nothing else is said.
        other_weights: more that were published for the same architecture.
        sample_texts: some texts in the language of the weights, by which `weights verify` tries them.
        adaptation_rate: the learning rate that `adapt` begins with; by default that of WiSE-FT's paper.
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
        """The record for weights that need this activation and preprocessing."""
        if activation == self.config.activation and preprocessing == self.preprocessing:
            return self
        config = replace(self.config, activation=activation)
        return replace(self, config=config, preprocessing=preprocessing, reference_values=None)

    def with_weights(self, source: WeightsSource) -> Pretrained:
        """The record with other of its published weights as those that are meant."""
        if source == self.weights:
            return self
        record = self.with_settings(source.activation, source.preprocessing or self.preprocessing)
        others = tuple(other for other in self.published if other is not source)
        return replace(record, weights=source, other_weights=others, reference_values=None)
