"""What a module's files say of it that its record does not: names, descriptions and published figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Text(NamedTuple):
    """The same in English and in Chinese."""

    en: str
    zh: str


class Releases(NamedTuple):
    """Versions with what is new in each, in both languages."""

    en: tuple[tuple[str, str], ...]
    zh: tuple[tuple[str, str], ...]


RELEASES = Releases(
    (
        ("1.0.0", "First release"),
        ("1.1.0", "Faster engines, `clip-hub`, a server, search, evaluation and adaptation"),
    ),
    (("1.0.0", "初始发布"), ("1.1.0", "更快的推理引擎、`clip-hub` 命令、服务、检索、评测与微调")),
)


@dataclass(frozen=True)
class Card:
    """One module.

    Attributes:
        name: the module's.
        class_name: of its class in `module.py`.
        what: the model, as the first words of `module.py`.
        with_what: the same after "with".
        summary: what PaddleHub lists.
        size_mb: of its weights.
        indicator: the one figure of PaddleHub's table.
        labels: what it chooses among where no labels are given.
        introduction: the template of its own part of the READMEs.
        encoder: what its image encoder is, as OpenAI's introduction says it.
        figures: published zero-shot top-1 by data set, %.
        single_template: published ImageNet top-1 with one template, %.
    """

    name: str
    class_name: str
    what: str
    with_what: str
    summary: str
    network: Text
    dataset: Text
    size_mb: int
    updated: str
    indicator: Text
    labels: Text
    introduction: str
    encoder: Text | None = None
    figures: dict[str, str] = field(default_factory=dict)
    single_template: str | None = None
    releases: Releases = RELEASES


IMAGENET_LABELS = Text(
    'the 1,000 classes of ImageNet with the template "a photo of a {}."',
    ' ImageNet 的 1000 个类别和模板 "a photo of a {}."',
)
OPENAI_DATA = Text(
    "400 million image-text pairs collected by OpenAI (not published)",
    "OpenAI 收集的 4 亿图文对（未公开）",
)
# open_clip, docs/openclip_results.csv, rows "*,openai".
DATA_SETS = ("ImageNet", "ImageNet-V2", "CIFAR-10", "CIFAR-100", "Oxford Pets")


def openai_card(
    name: str,
    class_name: str,
    backbone: str,
    network: Text,
    encoder: Text,
    size_mb: int,
    figures: tuple[str, ...],
    single_template: str | None = None,
) -> Card:
    """A module with OpenAI's weights; of the figures the first is ImageNet's."""
    return Card(
        name=name,
        class_name=class_name,
        what=f"OpenAI's CLIP with the {backbone} backbone",
        with_what=f"OpenAI's CLIP, backbone {backbone}",
        summary=f"OpenAI's CLIP, {backbone}: zero-shot image classification and image-text embedding.",
        network=network,
        dataset=OPENAI_DATA,
        size_mb=size_mb,
        updated="2026-11-25",
        indicator=Text(
            f"ImageNet zero-shot top-1: {figures[0]} % (published)",
            f"ImageNet 零样本 top-1：{figures[0]} %（公开数据）",
        ),
        labels=IMAGENET_LABELS,
        introduction="openai",
        encoder=encoder,
        figures=dict(zip(DATA_SETS, figures, strict=False)),
        single_template=single_template,
    )


CARDS = {
    card.name: card
    for card in (
        openai_card(
            "clip_rn50",
            "ClipRN50",
            "RN50",
            Text("modified ResNet-50 (CLIP RN50)", "改进的 ResNet-50（CLIP RN50）"),
            Text(
                "a modified ResNet-50: a stem of three convolutions, anti-aliased strides, attention pool",
                "改进的 ResNet-50：由三个卷积组成的 stem、抗锯齿下采样和注意力池化",
            ),
            256,
            ("59.82", "52.84", "71.57", "40.30", "85.29"),
            "55.09",
        ),
        openai_card(
            "clip_rn101",
            "ClipRN101",
            "RN101",
            Text("modified ResNet-101 (CLIP RN101)", "改进的 ResNet-101（CLIP RN101）"),
            Text(
                "a modified ResNet-101: a stem of three convolutions, anti-aliased strides, attention pool",
                "改进的 ResNet-101：由三个卷积组成的 stem、抗锯齿下采样和注意力池化",
            ),
            292,
            ("62.28", "56.12", "80.78", "47.64", "86.52"),
        ),
        openai_card(
            "clip_vit_b32",
            "ClipViTB32",
            "ViT-B/32",
            Text("Vision Transformer B/32 (CLIP ViT-B/32)", "Vision Transformer B/32（CLIP ViT-B/32）"),
            Text(
                "a Vision Transformer that cuts the image into patches of 32 x 32 pixels",
                " Vision Transformer，把图片切成 32 x 32 像素的小块",
            ),
            354,
            ("63.32", "55.92", "89.83", "64.23", "87.00"),
            "59.06",
        ),
        Card(
            name="clip_mini",
            class_name="ClipMini",
            what="A small CLIP that knows pictograms",
            with_what="a small CLIP that knows drawings",
            summary="A small CLIP for pictograms and clip-art that ships with its weights.",
            network=Text(
                "small ModifiedResNet (64 pixels) and text transformer",
                "小型 ModifiedResNet（64 像素）+ 文本 Transformer",
            ),
            dataset=Text("emoji and clip-art, sources below", "表情符号与剪贴画，来源见下文"),
            size_mb=32,
            updated="2026-11-25",
            indicator=Text(
                "emoji of a style never seen, 60 labels: top-1 78 % (95 % interval 66 to 87)",
                "未见过画风的表情符号，60 个标签：top-1 78 %（95 % 区间 66～87）",
            ),
            labels=Text(
                'its own set of 248 names of everyday things with the template "a picture of a {}"',
                '自带的 248 个常见事物名称和模板 "a picture of a {}"',
            ),
            introduction="clip_mini",
        ),
    )
}
