"""The forms in which a customer's program may ask for its links, and how it says which one it wants."""

from __future__ import annotations

import enum
from typing import ClassVar, Final

import attrs

from runtime.config.nearest import did_you_mean
from runtime.errors import AtlasError


class Format(enum.Enum):
    """A form of the same links. The value is what `atlas subscription --format` and an address's suffix call it."""

    BASE64 = "base64"  # links, one a line, in Base64: what most programs expect
    PLAIN = "plain"  # links, one a line
    SING_BOX = "singbox"
    CLASH = "clash"  # Mihomo; the first Clash had no VLESS
    XRAY = "xray"
    HTML = "html"  # for a browser
    QR = "qr"


@attrs.frozen
class Body:
    """What is answered. The content is a credential; its repr does not show it."""

    content: bytes = attrs.field(repr=False)
    content_type: str


class UnknownFormat(AtlasError):
    """An address asks for a form that there is not."""

    exit_code: ClassVar[int] = 64


_SUFFIXES: Final = {format_.value: format_ for format_ in Format} | {
    "b64": Format.BASE64,
    "v2ray": Format.BASE64,
    "txt": Format.PLAIN,
    "sing-box": Format.SING_BOX,
    "mihomo": Format.CLASH,
    "clash-meta": Format.CLASH,
    "yaml": Format.CLASH,
    "v2ray-json": Format.XRAY,
    "json": Format.XRAY,
    "svg": Format.QR,
}
# How the programs call themselves, in lower case. The first part decides: some name the core of another one later on.
_PROGRAMS: Final = (
    (("clash", "mihomo", "stash", "flclash", "koala-clash"), Format.CLASH),
    (("sfa/", "sfi/", "sfm/", "sft/", "sing-box", "karing", "hiddify"), Format.SING_BOX),
    (
        ("v2ray", "happ/", "streisand", "shadowrocket", "nekobox", "nekoray", "v2box", "foxray", "v2raytun", "incy/"),
        Format.BASE64,
    ),
)


def choose_format(user_agent: str, accept: str, suffix: str = "") -> Format:
    """The form to answer in: what the suffix says; else what the program reads; else a page for a browser; else Base64.

    `user_agent` and `accept` are the request's headers, empty if there are none. Letter case does not matter. Raises
    UnknownFormat for a suffix that is none, with the nearest one.
    """
    if suffix:
        try:
            return _SUFFIXES[suffix.lower()]
        except KeyError:
            raise UnknownFormat(
                f"there is no form {suffix[:40]!r} of a subscription{did_you_mean(suffix, _SUFFIXES)}"
            ) from None
    program = user_agent.strip().lower()
    for names, format_ in _PROGRAMS:
        if program.startswith(names):
            return format_
    return Format.HTML if "text/html" in accept.lower() else Format.BASE64
