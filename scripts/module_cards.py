"""Texts for the module folders that are not in a module's record: names, descriptions, published figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Text(NamedTuple):
    """A text in English and Chinese."""

    en: str
    zh: str


class Releases(NamedTuple):
    """Release notes: pairs of a version and what is new in it, in both languages."""

    en: tuple[tuple[str, str], ...]
    zh: tuple[tuple[str, str], ...]


RELEASES = Releases(
    (
        ("1.0.0", "First release"),
        ("1.1.0", "Faster engines, `clip-hub`, a server, search, evaluation and adaptation"),
        ("1.2.0", "Cosine scores with thresholds, heat maps, duplicates; compiled without Paddle"),
    ),
    (
        ("1.0.0", "初始发布"),
        ("1.1.0", "更快的推理引擎、`clip-hub` 命令、服务、检索、评测与微调"),
        ("1.2.0", "余弦得分与阈值、热力图、去重；编译不再需要 Paddle"),
    ),
)


@dataclass(frozen=True)
class Card:
    """The texts of one module.

    Attributes:
        name: name of the module.
        class_name: name of its class in `module.py`.
        what: the model, for the beginning of the docstring of `module.py`.
        with_what: the model, for use after the word "with".
        summary: the description in PaddleHub's list.
        size_mb: size of its weights, in MB.
        indicator: the figure in PaddleHub's table.
        labels: the default labels.
        introduction: name of the template of its part of the READMEs.
        encoder: the image encoder, for the introduction of OpenAI's models.
        figures: published zero-shot top-1 accuracy by data set, %.
        single_template: published ImageNet top-1 accuracy with one template, %.
        examples: three labels in a language of the model; the first is right for a diagram.
        template: a template for these labels.
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
    examples: tuple[str, str, str] = ("a diagram", "a dog", "a cat")
    template: str = "a photo of {}"
    releases: Releases = RELEASES


NEW = Releases(
    (
        ("1.1.0", "First release"),
        ("1.2.0", "Cosine scores with thresholds, heat maps, duplicates; compiled without Paddle"),
    ),
    (("1.1.0", "初始发布"), ("1.2.0", "余弦得分与阈值、热力图、去重；编译不再需要 Paddle")),
)
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
    releases: Releases = RELEASES,
) -> Card:
    """The card of a module with OpenAI's weights; `figures` are in the order of `DATA_SETS`."""
    return Card(
        name=name,
        class_name=class_name,
        what=f"OpenAI's CLIP with the {backbone} backbone",
        with_what=f"OpenAI's CLIP, backbone {backbone}",
        summary=f"OpenAI's CLIP, {backbone}: zero-shot image classification and image-text embedding.",
        network=network,
        dataset=OPENAI_DATA,
        size_mb=size_mb,
        updated="2026-11-26",
        indicator=Text(
            f"ImageNet zero-shot top-1: {figures[0]} % (published)",
            f"ImageNet 零样本 top-1：{figures[0]} %（公开数据）",
        ),
        labels=IMAGENET_LABELS,
        introduction="openai",
        encoder=encoder,
        figures=dict(zip(DATA_SETS, figures, strict=False)),
        single_template=single_template,
        releases=releases,
    )


def resnet_card(name: str, class_name: str, backbone: str, size_mb: int, figures: tuple[str, ...]) -> Card:
    """One of OpenAI's ResNets that are scaled as EfficientNets are."""
    times = backbone.partition("x")[2]
    return openai_card(
        name,
        class_name,
        backbone,
        Text(f"modified ResNet-50, scaled (CLIP {backbone})", f"改进并放大的 ResNet-50（CLIP {backbone}）"),
        Text(
            f"a modified ResNet-50 at about {times} times the computation: a stem of three convolutions, "
            "anti-aliased strides, attention pool",
            f"改进的 ResNet-50，计算量约为 {times} 倍：由三个卷积组成的 stem、抗锯齿下采样和注意力池化",
        ),
        size_mb,
        figures,
        releases=NEW,
    )


def vit_card(
    name: str, class_name: str, backbone: str, patch: int, size_mb: int, figures: tuple[str, ...]
) -> Card:
    """One of OpenAI's Vision Transformers."""
    return openai_card(
        name,
        class_name,
        backbone,
        Text(f"Vision Transformer (CLIP {backbone})", f"Vision Transformer（CLIP {backbone}）"),
        Text(
            f"a Vision Transformer that cuts the image into patches of {patch} x {patch} pixels",
            f" Vision Transformer，把图片切成 {patch} x {patch} 像素的小块",
        ),
        size_mb,
        figures,
        releases=NEW,
    )


# Chinese-CLIP's README.
CHINESE_TASKS = ("ImageNet (zh) top-1", "MUGE R@1", "Flickr30K-CN text to image R@1", "image to text R@1")


def chinese_card(
    name: str,
    class_name: str,
    backbone: str,
    text: str,
    encoder: Text,
    size_mb: int,
    figures: tuple[str, str, str, str],
) -> Card:
    """A module with the weights of Chinese-CLIP."""
    return Card(
        name=name,
        class_name=class_name,
        what=f"Chinese-CLIP with the backbone {backbone}",
        with_what=f"Chinese-CLIP, backbone {backbone}",
        summary=f"Chinese-CLIP, {backbone}: zero-shot classification and image-text embedding in Chinese.",
        network=Text(f"{backbone} and {text}", f"{backbone} 与 {text}"),
        dataset=Text("about 200 million Chinese image-text pairs", "约 2 亿中文图文对"),
        size_mb=size_mb,
        updated="2026-11-26",
        indicator=Text(
            f"ImageNet zero-shot top-1, in Chinese: {figures[0]} % (published)",
            f"ImageNet 中文零样本 top-1：{figures[0]} %（公开数据）",
        ),
        labels=Text(
            'its own set of some 500 Chinese names of everyday things with the template "一张{}的照片"',
            "自带的约 500 个常见事物的中文名称和模板“一张{}的照片”",
        ),
        introduction="chinese_clip",
        encoder=encoder,
        figures=dict(zip(CHINESE_TASKS, figures, strict=True)),
        examples=("示意图", "一只狗", "一只猫"),
        template="一张{}的照片",
        releases=NEW,
    )


def chinese_vit_card(
    name: str, class_name: str, backbone: str, text: str, patch: int, size_mb: int,
    figures: tuple[str, str, str, str],
) -> Card:  # fmt: skip
    """One whose image encoder is a Vision Transformer."""
    encoder = Text(
        f"a Vision Transformer that cuts the image into patches of {patch} x {patch} pixels",
        f" Vision Transformer，把图片切成 {patch} x {patch} 像素的小块",
    )
    return chinese_card(name, class_name, backbone, text, encoder, size_mb, figures)


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
        resnet_card(
            "clip_rn50x4", "ClipRN50x4", "RN50x4", 422, ("66.27", "59.44", "79.43", "45.14", "88.29")
        ),
        resnet_card(
            "clip_rn50x16", "ClipRN50x16", "RN50x16", 661, ("70.72", "64.20", "81.34", "52.09", "89.56")
        ),
        resnet_card(
            "clip_rn50x64", "ClipRN50x64", "RN50x64", 1354, ("73.91", "67.06", "85.10", "59.85", "93.60")
        ),
        vit_card(
            "clip_vit_b16", "ClipViTB16", "ViT-B/16", 16, 351, ("68.34", "61.88", "90.77", "66.95", "88.86")
        ),
        vit_card(
            "clip_vit_l14", "ClipViTL14", "ViT-L/14", 14, 933, ("75.54", "69.83", "95.59", "75.82", "93.23")
        ),
        vit_card(
            "clip_vit_l14_336",
            "ClipViTL14At336",
            "ViT-L/14@336px",
            14,
            934,
            ("76.56", "70.89", "94.93", "74.36", "93.69"),
        ),
        chinese_card(
            "clip_cn_rn50",
            "ClipCnRN50",
            "RN50",
            "RBT3",
            Text(
                "a modified ResNet-50: a stem of three convolutions, anti-aliased strides, attention pool",
                "改进的 ResNet-50：由三个卷积组成的 stem、抗锯齿下采样和注意力池化",
            ),
            308,
            ("33.5", "42.6", "48.8", "60.0"),
        ),
        chinese_vit_card(
            "clip_cn_vit_b16",
            "ClipCnViTB16",
            "ViT-B/16",
            "RoBERTa-wwm-ext-base",
            16,
            753,
            ("48.3", "52.1", "62.7", "74.6"),
        ),
        chinese_vit_card(
            "clip_cn_vit_l14",
            "ClipCnViTL14",
            "ViT-L/14",
            "RoBERTa-wwm-ext-base",
            14,
            1630,
            ("54.7", "56.3", "68.0", "80.2"),
        ),
        chinese_vit_card(
            "clip_cn_vit_l14_336",
            "ClipCnViTL14At336",
            "ViT-L/14@336px",
            "RoBERTa-wwm-ext-base",
            14,
            1630,
            ("56.7", "59.0", "69.0", "83.3"),
        ),
        chinese_vit_card(
            "clip_cn_vit_h14",
            "ClipCnViTH14",
            "ViT-H/14",
            "RoBERTa-wwm-ext-large",
            14,
            3830,
            ("59.6", "63.0", "71.2", "81.6"),
        ),
        Card(
            name="clip_mini",
            class_name="ClipMini",
            what="A small CLIP that knows common things",
            with_what="a small CLIP that knows common things",
            summary="A small CLIP for photographs and drawings of common things that ships with its weights.",
            network=Text(
                "EfficientNet-Lite1 (240 pixels) and a small text transformer",
                "EfficientNet-Lite1（240 像素）+ 小型文本 Transformer",
            ),
            dataset=Text(
                "ImageNet's classifier, WordNet's nouns, emoji and clip-art, sources below",
                "ImageNet 分类器、WordNet 名词、表情符号与剪贴画，来源见下文",
            ),
            size_mb=28,
            updated="2026-11-26",
            indicator=Text(
                "photographs of things that ImageNet names, 388 labels: top-1 79 % (95 % interval 60 to 90)",
                "ImageNet 中有的事物的照片，388 个标签：top-1 79 %（95 % 区间 60～90）",
            ),
            labels=Text(
                'its own set of 388 names of everyday things with the template "a photo of a {}."',
                '自带的 388 个常见事物名称和模板 "a photo of a {}."',
            ),
            introduction="clip_mini",
        ),
    )
}
