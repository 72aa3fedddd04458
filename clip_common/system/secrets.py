"""Removes secrets (passwords, signatures, keys) from addresses, so that they are neither printed nor stored.

Each field of the query falls under one of three rules:

- The name says that the field gives access (`token`, `sig`, `auth`, `X-Amz-...`): the field is left out. So
  an address stays the same when it is signed again.
- The field may give access: its value is replaced by `hidden-` and a hash, so that different addresses stay
  different, but the value cannot be read. This applies if the name may mean a key (`k`, `code`), if there is
  no name, or if the value is long and mixes letters and digits, as random keys do.
- All other fields stay. So do fields that identify the image or how it is shown, by their name (`id`, `file`,
  `width`) or because the value is a number or the name of an image file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from urllib.parse import quote, unquote_plus

from .addresses import WEB, scheme_of

_GIVES_ACCESS = re.compile(
    # Temporarily signed addresses of S3, Google, Azure, Alibaba and Tencent.
    r"x-(amz|goog|cos)-.*|x-oss-(?!process).*|q-(sign|ak|key|header|url|signature).*|.*signature|expires|.*accesskeyid|"
    r"googleaccessid|key-pair-id|policy|sig|"
    # Common names elsewhere.
    r".*token([-_].*)?|(.*[-_.])?(api|access|secret|private|auth|account|client|subscription)[-_]?key|"
    r"(.*[-_.])?o?auth(orization|entication)?([-_.].*)?|.*passw(or)?d|passphrase|pwd|.*secret([-_].*)?|"
    r".*credentials?|jwt|bearer|.*session([-_]?id)?|(php|j)?sess(ion)?id",
    re.IGNORECASE,
)
# Azure's fields next to `sig`: expiry, permissions and the like.
_SIGNED_BY_AZURE = re.compile(
    r"sv|ss|srt|sr|sp|st|se|spr|sip|si|sdd|sks|ske|skt|skv|skoid|sktid|saoid|suoid|scid", re.IGNORECASE
)
_MAY_BE_A_KEY = re.compile(r"k|key|code|pin|otp|pass|pw|sid", re.IGNORECASE)  # numbers are hidden too
_TELLS_THE_IMAGE = re.compile(
    r"((image|img|photo|picture|media|asset|object|item|version|doc)[-_]?)?(id|uuid|guid)|"
    r"(file|image|img|photo|picture|object)?[-_]?(name|path|url|uri|src)|file|image|img|photo|picture|pic|"
    r"source|u|title|slug|hash|md5|sha1|sha256|etag|v|ver|version|rev|revision|generation|page|index|"
    r"format|fm|fmt|ext|type|w|h|width|height|size|q|quality|dpr|scale|crop|fit|resize|rotate|auto|mode|alt|"
    r"dl|download|raw|ssl|strip|rect|lang|album|gallery|category|class|label|ixlib",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[\d.,:x-]{1,40}[A-Za-z]{0,2}")
_IMAGE_FILE = re.compile(r".+\.(jpe?g|png|webp|gif|bmp|tiff?|hei[cf]|avif|jp2|p[bgpn]m|ico)", re.I | re.S)
_MAY_BE_RANDOM = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w+/=.~-]{16,}", re.DOTALL)
_HIDDEN = re.compile(r"hidden-[0-9a-f]{16}")

# All repetitions, and the nesting of addresses, are bounded: the text may come from a hostile client.
_END = r"(?=[:;,.)\]}]{0,9}(?:[\s'\"<>]|$))"  # punctuation after an address does not belong to it
# The start of an address, even if mistyped: `https://`, `https:/`, `http//`, `http/` (what a path makes of
# `http//`), `https ://`, `//`.
_BEGINNING = (
    r"(?:\b(?:https?|s3|gs)[/\\]|[A-Za-z][A-Za-z0-9+.-]{0,20}(?::[/\\]{1,9}|[/\\]{2,9})|"
    r"(?<![\w/\\:.-]):?[/\\]{2,9})"
)
_PORT = r"\d{1,5}(?:[^\w@]|$)"
_USER = re.compile(
    rf"({_BEGINNING})[^\s/\\?#@:]{{0,300}}(?::(?!\s|{_PORT})[^\n@]{{0,300}})?@(?:[^\s/\\?#@]{{0,300}}@){{0,9}}"
)
_USER_ALONE = re.compile(r"(?<![^\s'\"(=<,])[^\s/\\:@'\"(=<,]{1,300}:(?![\s/\\])[^\s@/\\]{1,300}@(?=[\w\[])")
# File names may contain `?` and `#`: a path (`/x`, `./x` or `~/x`) has no query. But a mistyped address in a
# list of images becomes a path in the list's folder: `/lists/https:/host/x?sig=...`.
_LISTED = r"(?<=/)(?i:(?:https?|s3|gs)[/\\]|[a-z][a-z0-9+.-]{0,20}:[/\\])"
_PATH = rf"(?<![^\s'\"<>(=,])(?:\.{{1,2}}|~)?/(?!/)(?:(?!{_LISTED})[^\s'\"<>])*"
_QUERY = re.compile(rf"([?#])([^\s'\"<>=?#]{{0,300}}=[^\s'\"<>]*?){_END}")
_PATH_OR_QUERY = re.compile(rf"{_PATH}|{_QUERY.pattern}")
# Only for http(s): in the address of a bucket, `?` may be part of a glob.
_QUERY_OF_ONE_WORD = re.compile(
    rf"(\bhttps?\W[^\s'\"<>?#]{{0,2000}})(\?)([^\s'\"<>=#]+?){_END}", re.IGNORECASE
)


def without_secrets(address: str) -> str:
    """Return an address as it is stored to identify an image, without secrets; see the rules above.

    In a bucket, `?` may be part of an object's name: there only fields that give access are left out.
    """
    user = _USER.match(address)
    text = user[1] + address[user.end() :] if user else address
    if scheme_of(text) not in WEB:
        name, mark, query = text.partition("?")
        return _with_query(name, mark, _fields(query, str) if holds_access(text) else [query])
    rest, mark, query = text.partition("#")[0].partition("?")
    scheme, _, rest = rest.partition("://")
    host, slash, path = rest.partition("/")
    return _with_query(f"{scheme.lower()}://{host.lower()}{slash}{path}", mark, _fields(query, _shown))


def holds_access(address: str) -> bool:
    """Whether the name of a field in an address's query says that it gives access."""
    return any(_GIVES_ACCESS.fullmatch(_name(field)) for field in _split(address.partition("?")[2]))


def hide_secrets(text: str) -> str:
    """Return a message or a user's input as it may be printed.

    Everything that looks like an address, even a mistyped one, loses its user name and password, and the
    rules above apply to its query.
    """
    return _hidden(text, _shown, _PATH_OR_QUERY)


def _hidden(text: str, shown: Callable[[str], str], query: re.Pattern[str] = _QUERY) -> str:
    if "@" in text:
        text = _USER.sub(r"\1***@", text)
        text = _USER_ALONE.sub("***@", text)
    if "?" not in text and "#" not in text:
        return text
    text = query.sub(
        lambda found: _with_query("", found[1], _fields(found[2], shown)) if found[1] else found[0], text
    )
    return _QUERY_OF_ONE_WORD.sub(
        lambda found: _with_query(found[1], found[2], _fields(found[3], shown)), text
    )


def _with_query(rest: str, mark: str, fields: list[str]) -> str:
    query = "&".join(fields)
    return f"{rest}{mark}{query}" if query else rest


def _split(query: str) -> list[str]:
    return [field for field in re.split("[&;#]", query) if field]


def _name(field: str) -> str:
    """The name of a field, decoded; empty if the field is only a value."""
    return unquote_plus(_parts(field)[0])


def _fields(query: str, shown: Callable[[str], str]) -> list[str]:
    """The fields of a query that do not give access, each as `shown` returns it."""
    fields = [field for field in _split(query) if not _GIVES_ACCESS.fullmatch(_name(field))]
    if any(_name(field).lower() == "sig" for field in _split(query)):
        fields = [field for field in fields if not _SIGNED_BY_AZURE.fullmatch(_name(field))]
    return [shown(field) for field in fields]


def _shown(field: str) -> str:
    """A field with its value or the value's hash. If the value is an address, the rules apply to it too."""
    name, mark, value = _parts(field)
    plain = unquote_plus(value)
    safe = _hidden(plain, _shown_within)
    return _shown_alone(field) if safe == plain else f"{name}{mark}{quote(safe, safe='/:?=,*@')}"


def _shown_within(field: str) -> str:
    """`_shown` for an address within a value; a value with yet another address is hashed as a whole."""
    _, _, value = _parts(field)
    return _hashed(field) if set("?#@") & set(unquote_plus(value)) else _shown_alone(field)


def _shown_alone(field: str) -> str:
    """`_shown` for a value that is not an address."""
    name, _, value = _parts(field)
    plain, key = unquote_plus(value), unquote_plus(name)
    tells_the_image = _TELLS_THE_IMAGE.fullmatch(key) or _IMAGE_FILE.fullmatch(plain)
    if not value or tells_the_image or _HIDDEN.fullmatch(value):
        return field
    if not key:
        return field if _NUMBER.fullmatch(plain) else _hashed(field)
    return _hashed(field) if _MAY_BE_A_KEY.fullmatch(key) or _MAY_BE_RANDOM.fullmatch(plain) else field


def _hashed(field: str) -> str:
    name, mark, value = _parts(field)
    digest = hashlib.sha256(unquote_plus(value).encode("utf-8", "replace")).hexdigest()
    return f"{name}{mark}hidden-{digest[:16]}"


def _parts(field: str) -> tuple[str, str, str]:
    """The name, `=` and value of a field; without `=`, only the value is not empty."""
    name, mark, value = field.partition("=")
    return (name, mark, value) if mark else ("", "", name)
