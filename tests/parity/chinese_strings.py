"""Strings to try the Chinese tokenizer with: those of `strings.py`, and as many that are mostly Chinese."""

from __future__ import annotations

import numpy as np

from tests.parity.strings import PIECES, SPACES, drawn, listed, pick, strings

COUNT = 24_000
SEED = 20221102  # the day Chinese-CLIP's paper appeared

_WORDS = (
    "一张 照片 图片 的 狗 猫 杰尼龟 妙蛙种子 小火龙 皮卡丘 北京 上海市 中华人民共和国 自行车 飞机 火车站 "
    "苹果手机 红色的连衣裙 两只大熊猫在吃竹子 夕阳下的海滩 一碗热腾腾的牛肉面 戴眼镜的老人 电脑键盘 "
    "國 龍 鳳 體 臺灣 電腦 鑰匙 鬱 龘 靐 齉 〇 々 〆 ヶ 卅 卌 㐀 䶵 鿕 豈 更 車 﨩 𠀀 𠮷 𪚥 𫝆 你好世界 "
    "２０２２年１１月 ＡＢＣ ａｂｃ 第３名 100元 50％ 3.5米 iPhone手机 T恤 KTV包厢 X光片 GPU显卡 4K电视 "
    "U盘 B超 卡拉OK PM2.5 5G网络 Ⅲ型 ① ㈱ ㎡ ℃ αβ射线 ﾊﾝｶｸ ガギグ ぱぴぷ 漢字かな交じり文 한국어 각 "
    "Pokémon神奇宝贝 naïve café冰淇淋 Ångström hello world unaffable playing 2022 1999年"
).split()
_MARKS = list("，。、；：？！…—·～「」『』（）《》〈〉【】〔〕“”‘’￥％＃＠＆＊＋－／＼｜＾＿｀｛｝")
_SPECIAL = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] [pad] [unused1] ##的 ## 的## #的 <S> <T> [CLS][SEP] 【CLS】 [ CLS ] "
    "\u2028 的\u2028的 \u2029 \x85 a\x85b"
).split(" ")
FIXED = [
    "的" * 60,
    "的 " * 60,
    "a" * 199,
    "a" * 200,
    "a" * 201,
    "é" * 200,
    "e\u0301" * 200,  # 400 characters before the accents are dropped
    "e\u0301" * 201,
    "의" * 80,  # three letters each once decomposed
    "x" * 5000,
    "狗" * 5000,
    "《" * 300,
    "ab" * 100 + "狗" + "ab" * 101,
    "\u0301",
    "\u0301狗",
    "\u200d狗\u200d猫",
    "\ufeff狗",
    "\ufffd狗\x00猫",
    "狗\u3000猫",
    *_WORDS,
    *_MARKS,
    *_SPECIAL,
]
_PIECES = [
    *[listed(_WORDS)] * 6,
    *[listed(_MARKS)] * 2,
    listed(_SPECIAL),
    drawn([(0x4E00, 0x9FA5)], 12),
    drawn([(0x4E00, 0x62FF)], 8),
    drawn([(0x3400, 0x4DB5), (0x20000, 0x2A6D6), (0x2A700, 0x2B734), (0xF900, 0xFA0B)], 4),
    drawn([(0x3041, 0x3096), (0x30A1, 0x30FA), (0xAC00, 0xD7A3)], 5),
    drawn([(0xFF01, 0xFF5E), (0x30, 0x39)], 8),
    drawn([(0x61, 0x7A)], 250),  # longer than any word may be
    *PIECES,
]


def chinese_strings(count: int = COUNT, seed: int = SEED) -> list[str]:
    """Half of the strings from `strings`, then the fixed ones, then random ones up to `count`."""
    random = np.random.RandomState(seed)
    half = strings(count // 2, seed)
    return [*half, *FIXED, *(_string(random) for _ in range(count - len(half) - len(FIXED)))]


def _string(random: np.random.RandomState) -> str:
    """A few pieces, mostly with nothing between them, as Chinese is written."""
    text = ""
    for _ in range(random.randint(1, 9)):
        text += pick(random, _PIECES)(random) + pick(random, ["", "", "", " ", pick(random, SPACES)])
    return text
