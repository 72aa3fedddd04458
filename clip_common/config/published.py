"""The modules' records: which weights are published for each architecture, where, and how good they are."""

from __future__ import annotations

from ..errors import RequestError
from .architectures import (
    CN_RN50,
    CN_VIT_B16,
    CN_VIT_H14,
    CN_VIT_L14,
    CN_VIT_L14_336,
    MINI,
    RN50,
    RN50X4,
    RN50X16,
    RN50X64,
    RN101,
    VIT_B16,
    VIT_B32,
    VIT_L14,
    VIT_L14_336,
    Activation,
    ClipConfig,
)
from .records import HF_FILE, HF_PICKLE, Preprocessing, Pretrained, ReferenceValues, WeightsSource

OPENAI_BASE_URL = "https://openaipublic.azureedge.net/clip/models"
# Copies of OpenAI's files, made by Jina AI for clip-as-service. ViT-B-16.pt is known to have OpenAI's hash
# there; the hash of each is checked when it is downloaded, as that of every file.
_OPENAI_COPIES = "jinaai/clip-models"
_OPEN_CLIP_RELEASES = "https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights"

# Accuracies: docs/openclip_results.csv of mlfoundations/open_clip.
_ROUNDED = 2e-3  # what cn-clip's rounding of weights to fp16 may change in a score
_SQUASH = Preprocessing(resize="squash")
_INCEPTION = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _openai(file: str, sha256: str, imagenet: float) -> WeightsSource:
    return WeightsSource(file, sha256, "MIT", OPENAI_BASE_URL, huggingface=_OPENAI_COPIES, imagenet=imagenet)


def _release(tag: str, file: str, sha256: str, activation: Activation, imagenet: float) -> WeightsSource:
    """Weights among the releases of open_clip on GitHub."""
    address = f"{_OPEN_CLIP_RELEASES}/{file}"
    return WeightsSource(
        file, sha256, "MIT", release=address, tag=tag, activation=activation, imagenet=imagenet
    )


def _hugging_face(
    tag: str,
    repository: str,
    sha256: str | None,
    activation: Activation,
    imagenet: float,
    file: str = HF_FILE,
    preprocessing: Preprocessing | None = None,
    licence: str = "MIT",
) -> WeightsSource:
    """Weights in a repository on Hugging Face."""
    return WeightsSource(
        file,
        sha256,
        licence,
        huggingface=repository,
        tag=tag,
        activation=activation,
        preprocessing=preprocessing,
        imagenet=imagenet,
    )


def _chinese(file: str, sha256: str | None, repository: str) -> WeightsSource:
    return WeightsSource(
        file,
        sha256,
        "not stated by its authors",
        huggingface=f"OFA-Sys/{repository}",
        modelscope=f"AI-ModelScope/{repository}",
        tag="chinese_clip",
    )


def _chinese_record(
    name: str, config: ClipConfig, weights: WeightsSource, scores: tuple[float, ...] | None = None
) -> Pretrained:
    """A Chinese-CLIP.

    Args:
        scores: of `examples/pokemon.jpeg` for the sample texts, from the README of OFA-Sys/Chinese-CLIP.
    """
    return Pretrained(
        name,
        config,
        weights,
        preprocessing=_SQUASH,
        default_labels="everyday_zh",
        default_templates=("一张{}的照片",),
        sample_texts=("杰尼龟", "妙蛙种子", "小火龙", "皮卡丘"),
        reference_values=ReferenceValues(scores=scores, image_name="pokemon.jpeg", tolerance=_ROUNDED)
        if scores
        else None,
    )


PRETRAINED: dict[str, Pretrained] = {
    record.name: record
    for record in (
        Pretrained(
            "clip_rn50",
            RN50,
            _openai("RN50.pt", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762", 0.5982),
            (
                _release(
                    "yfcc15m",
                    "rn50-quickgelu-yfcc15m-455df137.pt",
                    "455df13750cec2d6bb5e578fa84fb59a63d40e9fdbae58e7e7155672e46dc578",
                    "quick_gelu",
                    0.3275,
                ),
                _release(
                    "cc12m",
                    "rn50-quickgelu-cc12m-f000538c.pt",
                    "f000538c6c3c33c07e4fad5619f1b3d4cd591864dd3143778896112d1bf4fa7d",
                    "quick_gelu",
                    0.3647,
                ),
            ),
            reference_values=ReferenceValues(text=(0.204745, 0.204893), image=0.0033531),
        ),
        Pretrained(
            "clip_rn101",
            RN101,
            _openai("RN101.pt", "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599", 0.6228),
            (
                _release(
                    "yfcc15m",
                    "rn101-quickgelu-yfcc15m-3e04b30e.pt",
                    "3e04b30eb7070e69b78db2c33f12a48cfa1f697691ed198d61fb2abbb48db5a3",
                    "quick_gelu",
                    0.3487,
                ),
            ),
            reference_values=ReferenceValues(text=(0.177382, 0.177382), image=0.0116348),
        ),
        Pretrained(
            "clip_rn50x4",
            RN50X4,
            _openai("RN50x4.pt", "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd", 0.6627),
        ),
        Pretrained(
            "clip_rn50x16",
            RN50X16,
            _openai("RN50x16.pt", "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa", 0.7072),
        ),
        Pretrained(
            "clip_rn50x64",
            RN50X64,
            _openai("RN50x64.pt", "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c", 0.7391),
        ),
        Pretrained(
            "clip_vit_b32",
            VIT_B32,
            _openai(
                "ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", 0.6332
            ),
            (
                _hugging_face(
                    "datacomp_xl_s13b_b90k",
                    "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
                    None,
                    "gelu",
                    0.6917,
                ),
                _hugging_face(
                    "laion2b_s34b_b79k",
                    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
                    "ac4f8c4b88af6d963118cbf40ad93176d092abbedfcb752601ae1866352656e6",
                    "gelu",
                    0.6656,
                ),
                _release(
                    "laion2b_e16",
                    "vit_b_32-laion2b_e16-af8dbd0c.pth",
                    "af8dbd0c4bf1654db018a2a70fd839c3a6e79d2fdac33303f06d0d8aae16a65c",
                    "gelu",
                    0.6565,
                ),
                _release(
                    "laion400m_e32",
                    "vit_b_32-quickgelu-laion400m_e32-46683a32.pt",
                    "46683a32721d5c68911153698992361285d20ca690bb4f317c11e45c03d798fa",
                    "quick_gelu",
                    0.6293,
                ),
                _release(
                    "laion400m_e31",
                    "vit_b_32-quickgelu-laion400m_e31-d867053b.pt",
                    "d867053b2301634007ed9af230bfb1a217ec634f6c0329f04092133ae5c4b89e",
                    "quick_gelu",
                    0.6294,
                ),
            ),
            reference_values=ReferenceValues(
                text=(0.255476, 0.255476), image=0.211792, scores=(0.9927937, 0.00421068, 0.00299572)
            ),
        ),
        Pretrained(
            "clip_vit_b16",
            VIT_B16,
            _openai(
                "ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f", 0.6834
            ),
            (
                _hugging_face(
                    "dfn2b",
                    "apple/DFN2B-CLIP-ViT-B-16",
                    None,
                    "quick_gelu",
                    0.762,
                    HF_PICKLE,
                    licence="Apple's",
                ),
                _hugging_face(
                    "datacomp_xl_s13b_b90k",
                    "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
                    None,
                    "gelu",
                    0.7349,
                ),
                _hugging_face(
                    "laion2b_s34b_b88k", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", None, "gelu", 0.7023
                ),
                _release(
                    "laion400m_e32",
                    "vit_b_16-laion400m_e32-55e67d44.pt",
                    "55e67d44b44d9e39aaf299a5c616aaf10a655879d6bd5854027b4a254aa2e7d5",
                    "gelu",
                    0.6705,
                ),
                _release(
                    "laion400m_e31",
                    "vit_b_16-laion400m_e31-00efa78f.pt",
                    "00efa78fe761eb607926704cfee46a4305ce2bf63af6ab50f1eeba2ef71da988",
                    "gelu",
                    0.6698,
                ),
            ),
        ),
        Pretrained(
            "clip_vit_l14",
            VIT_L14,
            _openai(
                "ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", 0.7554
            ),
            (
                _hugging_face(
                    "dfn2b",
                    "apple/DFN2B-CLIP-ViT-L-14",
                    None,
                    "quick_gelu",
                    0.814,
                    HF_PICKLE,
                    licence="Apple's",
                ),
                _hugging_face(
                    "datacomp_xl_s13b_b90k",
                    "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
                    "6509f07e6fc0da68f8e1ee881bf90803f0b053d2f7ed2013cc7c3a49ac4dd3db",
                    "gelu",
                    0.7921,
                    HF_PICKLE,
                ),
                _hugging_face(
                    "laion2b_s32b_b82k",
                    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
                    "5ddb47339f44e4fd9cace3d3960d38af1b51a25857440cfae90afc44706d7e2b",
                    "gelu",
                    0.7525,
                    HF_PICKLE,
                    _INCEPTION,
                ),
                _release(
                    "laion400m_e32",
                    "vit_l_14-laion400m_e32-3d133497.pt",
                    "3d133497672c345f50dec98ebc674bb74c14b4f3aa0f3088f7cefe7e05a10a60",
                    "gelu",
                    0.7277,
                ),
                _release(
                    "laion400m_e31",
                    "vit_l_14-laion400m_e31-69988bb6.pt",
                    "69988bb6afa2b63291087c61464b3138660b2861fea5ec4682e107d194d9aaa3",
                    "gelu",
                    0.7271,
                ),
            ),
        ),
        Pretrained(
            "clip_vit_l14_336",
            VIT_L14_336,
            _openai(
                "ViT-L-14-336px.pt",
                "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
                0.7656,
            ),
        ),
        _chinese_record(
            "clip_cn_rn50",
            CN_RN50,
            _chinese(
                "clip_cn_rn50.pt",
                "b196ee3ee528b70be1158ab1aafb1d2f1c801ad2d9ffb3bae31b0d305f82fc88",
                "chinese-clip-rn50",
            ),
        ),
        _chinese_record(
            "clip_cn_vit_b16",
            CN_VIT_B16,
            _chinese(
                "clip_cn_vit-b-16.pt",
                "5997ef32c50de18f3ac06eb5d746c324a639053c3bed8f2986f97ebb22b2ecde",
                "chinese-clip-vit-base-patch16",
            ),
            (1.268734e-03, 5.436878e-02, 6.795761e-04, 9.436829e-01),
        ),
        _chinese_record(
            "clip_cn_vit_l14",
            CN_VIT_L14,
            _chinese(
                "clip_cn_vit-l-14.pt",
                "26a0d4ac248fcea33e8c1e32c22a80def0fe9b1770b429129dfcc04bcd978d28",
                "chinese-clip-vit-large-patch14",
            ),
        ),
        _chinese_record(
            "clip_cn_vit_l14_336",
            CN_VIT_L14_336,
            _chinese("clip_cn_vit-l-14-336.pt", None, "chinese-clip-vit-large-patch14-336px"),
        ),
        _chinese_record(
            "clip_cn_vit_h14",
            CN_VIT_H14,
            _chinese(
                "clip_cn_vit-h-14.pt",
                "4549b1a9775db38806dfa398e8e97be4e27299b84b71250d8d2ef0472e708aee",
                "chinese-clip-vit-huge-patch14",
            ),
        ),
        Pretrained(
            "clip_mini",
            MINI,
            WeightsSource(
                "clip_mini.safetensors",
                "557d6626997d53ba0af50b93008c9557891769005225c430c4a2f6a89d2e6322",
                "Apache-2.0",
                tag="everyday",
            ),
            # EfficientNet-Lite takes (x - 127) / 128. Drawings are composed over white: dropped alpha leaves
            # black.
            preprocessing=Preprocessing(
                mean=(127 / 255,) * 3, std=(128 / 255,) * 3, background=(255, 255, 255)
            ),
            default_labels="everyday",
            default_templates=("a photo of a {}.",),
            adaptation_rate=3e-4,
        ),
    )
}


# By data set and module, of its own weights, with each set's own templates. ImageNet's stand in the records.
_TOP_1 = {
    "clip_rn50": (0.7157, 0.4030, 0.8080, 0.8529),
    "clip_rn101": (0.8078, 0.4764, 0.8367, 0.8652),
    "clip_rn50x4": (0.7943, 0.4514, 0.8640, 0.8829),
    "clip_rn50x16": (0.8134, 0.5209, 0.9051, 0.8956),
    "clip_rn50x64": (0.8510, 0.5985, 0.9205, 0.9360),
    "clip_vit_b32": (0.8983, 0.6423, 0.8400, 0.8700),
    "clip_vit_b16": (0.9077, 0.6695, 0.8872, 0.8886),
    "clip_vit_l14": (0.9559, 0.7582, 0.9305, 0.9323),
    "clip_vit_l14_336": (0.9493, 0.7436, 0.9386, 0.9369),
}
_DATA_SETS = ("CIFAR-10", "CIFAR-100", "Food-101", "Oxford Pets")
PUBLISHED_TOP_1: dict[str, dict[str, float]] = {
    "ImageNet": {
        name: record.weights.imagenet for name, record in PRETRAINED.items() if record.weights.imagenet
    },
    **{
        data_set: {module: figures[place] for module, figures in _TOP_1.items()}
        for place, data_set in enumerate(_DATA_SETS)
    },
}


def pretrained(name: str) -> Pretrained:
    """The record of a module by its name.

    Raises:
        RequestError: no module has that name; the message lists those that exist.

    Examples:
        >>> pretrained("clip_vit_b32").config.embed_dim
        512
    """
    try:
        return PRETRAINED[name]
    except (KeyError, TypeError):  # TypeError: a list has no hash
        raise RequestError(f"no module is named {name!r}: there are {', '.join(PRETRAINED)}") from None
