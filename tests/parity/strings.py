"""Strings to try tokenizers with, the same on every machine, since `RandomState` is frozen.

Code points are taken from ranges that Unicode assigned long ago: Python 3.10 to 3.12 know different versions,
and what lower case, HTML entities and ftfy's normalisation do to newer ones would depend on the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

COUNT = 12_000
SEED = 20210226  # the day the paper appeared

_WORDS = (
    "a photo of the dog cat diagram elephant Photograph PICTURE iPhone McDonald's naïve café résumé Zürich "
    "über straße Straße STRASSE ﬁne oﬃce Ǆungla ǅep œuvre Ærø ångström smörgåsbord İstanbul ısı IĞDIR "
    "congreſs Poſt ΣΊΣΥΦΟΣ ὈΔΥΣΣΕΎΣ привет МИР тест Ёлка łódź ČEŠTINA Việt tiếng 'tis rock'n'roll "
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis http://example.com/a?b=c&d=e "
    "user@example.org C++ #hashtag @mention snake_case camelCase 3.14159 1,000,000 2021-02-26 12:30 50% "
    "$9.99 ½ ² ³ Ⅷ ⅷ ① ٣٤٥ १२३ 〇 ㊗ ℃ № ™ © ® ª º µ ß ſ \u212a \u212b"
).split()
_CONTRACTIONS = (
    "'s 't 're 've 'm 'll 'd 'S 'T 'RE 'Ve 'LL 'D 'ſ ’s ’t ‘ve ʼll 'sd ''s 's's I'm don't we'd've".split()
)
_ENTITIES = (
    "&amp; &lt; &gt; &quot; &apos; &nbsp; &eacute; &AMP; &amp;amp; &amp;lt; &amp;amp;amp; &amp;eacute; &#39; "
    "&#x27; &#x1F600; &#0; &#xD800; &#128; &#x110000; &amp &ampamp; &notit; &NotEqualTilde; &amp;#39; "
    "&lt;|endoftext|&gt; &hellip; &shy; &zwj; &ThickSpace; &bogus; &; &#; &#x;"
).split()
_MOJIBAKE = (
    "schÃ¶n cafÃ© â€œquotedâ€\x9d itâ€™s Ã©tÃ© ï»¿bom Â£5 â‚¬10 ÐŸÑ€Ð¸Ð²ÐµÑ‚ ä½\xa0å¥½ ðŸ˜€ Ã¢â‚¬â„¢ âœ” sÃ³ "
    "LÃ\xa0 Ãƒ©"
).split(" ")
_EMOJI = (
    "😀 👍🏽 👩\u200d👩\u200d👧\u200d👦 🏳\ufe0f\u200d🌈 🇫🇷 🇨🇳🇯🇵 ❤\ufe0f ❤ ☺\ufe0e 1\ufe0f\u20e3 "
    "#\ufe0f\u20e3 👨🏿\u200d🚀 🧑\u200d🎄 ✈\ufe0f "
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f 😀😀😀 ☃ ♠"
).split(" ")
_SPECIAL = (
    "<|endoftext|> <|startoftext|> <|ENDOFTEXT|> <|StartOfText|> <|ſtartoftext|> <|endoftext|><|endoftext|> "
    "<|endoftext <|end|> x<|startoftext|>y <||endoftext||> </w> a</w> Ġ Ċ Ā"
).split(" ")
# Split by none: these are what Python, regex, HTML and ftfy each call white space, or do not.
SPACES = list(
    "   \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
SPACES += ["\u200b", "\u2060", "\ufeff", "\u180e", "\r\n", "     "]
_CONTROLS = [
    chr(code) for code in (*range(9), 14, 27, 127, 0x80, 0x8D, 0x9D, 0xAD, 0x200E, 0x202E, 0xFFF9, 0xFFFD)
]
_CONTROLS += [
    "\x1b[31mred\x1b[0m",
    "\ufffe",
    "\uffff",
    "\ue000",
    "\U000f0000",
    "\U0010ffff",
    "\ud83d",
    "\ud83d\ude00",
]
_RANGES = {
    "ascii": [(0x20, 0x7E)],
    "latin": [(0xA0, 0x24F), (0x1E00, 0x1EFF)],
    "punctuation": [
        (0x21, 0x2F),
        (0x3A, 0x40),
        (0x5B, 0x60),
        (0x7B, 0x7E),
        (0x2010, 0x2027),
        (0x2030, 0x205E),
    ],
    "combining": [(0x61, 0x7A), (0x300, 0x36F), (0x300, 0x36F), (0x20D0, 0x20DC)],
    "greek_cyrillic": [(0x386, 0x386), (0x388, 0x38A), (0x391, 0x3A1), (0x3A3, 0x3CE), (0x400, 0x52F)],
    "right_to_left": [(0x5D0, 0x5EA), (0x5B0, 0x5BC), (0x620, 0x64A), (0x64B, 0x652), (0x660, 0x669)],
    "indic_thai": [(0x905, 0x939), (0x93E, 0x94D), (0x966, 0x96F), (0xE01, 0xE3A), (0xE40, 0xE4E)],
    "cjk": [
        (0x4E00, 0x9FA5),
        (0x3041, 0x3096),
        (0x30A1, 0x30FA),
        (0xAC00, 0xD7A3),
        (0x3001, 0x3011),
        (0xF900, 0xFA0B),
    ],
    "compatibility": [
        (0xFB00, 0xFB06),
        (0xFF01, 0xFF5E),
        (0xFF61, 0xFF9F),
        (0x2100, 0x214F),
        (0x2460, 0x24FF),
    ],
    "symbols": [(0x2190, 0x21FF), (0x2500, 0x257F), (0x2600, 0x26FF), (0x1F300, 0x1F5FF), (0x1F600, 0x1F64F)],
    "plane_one": [(0x1D400, 0x1D454), (0x10400, 0x1044F), (0x12000, 0x1236E), (0x20000, 0x2A6D6)],
}
# What a random draw is unlikely to meet, in full.
FIXED = [
    "",
    " ",
    "\n\t ",
    "\x00",
    "'",
    "a" * 300,
    "ab" * 150,
    "é" * 200,
    "😀" * 60,
    "x" * 76 + " " + "y" * 77,
    "0123456789" * 10,
    " ".join(["word"] * 100),
    "!" * 120,
    "a\u0301" * 50,
    *_WORDS,
    *_CONTRACTIONS,
    *_ENTITIES,
    *_MOJIBAKE,
    *_EMOJI,
    *_SPECIAL,
    *SPACES,
    *_CONTROLS,
    *(f"a{space}b" for space in SPACES),
    *(f"a{control}b" for control in _CONTROLS),
]


def strings(count: int = COUNT, seed: int = SEED) -> list[str]:
    """The fixed strings, then random ones up to `count`."""
    random = np.random.RandomState(seed)
    return [*FIXED, *(_string(random) for _ in range(count - len(FIXED)))]


def _string(random: np.random.RandomState) -> str:
    """A few pieces of random kinds, joined by nothing, a space, or an odd one."""
    text = ""
    for _ in range(random.randint(1, 9)):
        text += pick(random, PIECES)(random)
        text += pick(random, ["", " ", " ", " ", pick(random, SPACES)])
    return text.upper() if random.randint(12) == 0 else text


def pick(random: np.random.RandomState, items: list) -> Any:
    """One of the items."""
    return items[random.randint(len(items))]


def listed(items: list[str]) -> Callable[[np.random.RandomState], str]:
    """What picks a piece of text from a list."""
    return lambda random: pick(random, items)


def drawn(ranges: list[tuple[int, int]], longest: int) -> Callable[[np.random.RandomState], str]:
    """What draws a piece of text from ranges of code points, each as likely as the others."""

    def draw(random: np.random.RandomState) -> str:
        picked = (pick(random, ranges) for _ in range(random.randint(1, longest + 1)))
        return "".join(chr(random.randint(first, last + 1)) for first, last in picked)

    return draw


PIECES = [
    *[listed(_WORDS)] * 5,
    *map(listed, (_CONTRACTIONS, _ENTITIES, _MOJIBAKE, _EMOJI, _SPECIAL, _CONTROLS)),
    *(drawn(ranges, 6) for ranges in _RANGES.values()),
    drawn([(0x61, 0x7A)], 40),  # long words that no merge list has
    drawn([(0x30, 0x39)], 12),
]
