"""Captions for training: an image's name, its head noun or a tag."""

from __future__ import annotations

import re

import numpy as np

# Templates that users put labels in. Only the label in place of "{}" carries meaning.
TEMPLATES = (
    "{}",
    "a {}",
    "an {}",
    "the {}",
    "a picture of a {}",
    "an emoji of a {}",
    "an icon of a {}",
    "a drawing of a {}",
    "a cartoon of a {}",
    "a clip-art of a {}",
    "an illustration of a {}",
    "a photo of a {}.",
    "a photo of a {}",
)
HEAD_SHARE, TAG_SHARE = 0.28, 0.12

# Names with one of these words are left out; "*" matches any ending.
_OFFENSIVE = (
    "nigg* fag* slut* whore* bitch* rape* raping nazi* hitler swastika genocid* lynch* retard* porn* nude* "
    "naked sex sexy sexual* penis* vagina* boob* breast* tits fuck* shit* cunt* dick cock pussy jap japs "
    "kike* chink* gook* spic spics wetback* gypsy gypsies savage* terroris* suicide* hang* noose* isis "
    "kkk klan slave* bastard* turd* poo* crap* piss* middle-finger executioner* guillotine* "
    "torture* gore* bin-laden gun guns pistol* rifle* bomb* grenade* machine-gun* ak47* cigarette* marijuana "
    "cannabis cocaine heroin luger uzi famas revolver* shotgun* musket* winchester* blunderbuss* bloody"
).split()
_HARMLESS = re.compile(r"\b(hanger|hanging|hang glid|pool|poodle|poor|coat hang|poolside)", re.IGNORECASE)
_FILTER = re.compile(
    r"\b("
    + "|".join(re.escape(word.rstrip("*")) + (r"\w*" if word.endswith("*") else "") for word in _OFFENSIVE)
    + r")\b",
    re.IGNORECASE,
)
# Last words that do not say what an image shows; and names whose last word is not the thing shown.
_GENERIC = set("face symbol icon sign button mark emoji selector outline one two three".split())
_NO_HEAD = set(
    "hot dog, sea horse, guinea pig, bow and arrow, ice cream, light bulb, hot pepper, mouse trap".split(", ")
)
_CUT = re.compile(r"\s(with|of|in|on|for|and|from|at|without|facing|over|under)\s|[:,(]")


def is_clean(text: str) -> bool:
    """Whether a name or tag contains none of the filtered words."""
    return not _FILTER.search(_HARMLESS.sub("", text.replace("_", " ")))


def head_noun(name: str) -> str:
    """The main noun of a name: "apple" of "fuji apple", "dog" of "dog face", "bird" of "bird on a branch"."""
    if name.lower() in _NO_HEAD:
        return name.lower()
    words = _CUT.split(name.lower())[0].split()
    while len(words) > 1 and (words[-1] in _GENERIC or words[-1].isdigit()):
        words.pop()
    return words[-1] if words else name.lower()


def subject_shares(name: str, tags: tuple[str, ...]) -> list[tuple[str, float]]:
    """The captions of an image in lower case (name, head noun, tags), each with its probability."""
    of_tags = TAG_SHARE if tags else 0.0
    shares = [(name.lower(), 1 - HEAD_SHARE - of_tags), (head_noun(name), HEAD_SHARE)]
    return shares + [(tag.lower(), of_tags / len(tags)) for tag in tags]


def draw_subject(name: str, tags: tuple[str, ...], rng: np.random.Generator) -> str:
    """Draw a caption for an image at random."""
    subjects, shares = zip(*subject_shares(name, tags), strict=True)
    return str(subjects[rng.choice(len(subjects), p=shares)])


def plural(noun: str) -> str:
    """The regular plural of a noun."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in set("aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}s"
