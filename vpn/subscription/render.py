"""The forms in which a customer's program may ask for its links, how it says which one it wants, and the body of the
answer.
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Sequence
from typing import ClassVar, Final

import attrs

from runtime import AtlasError
from runtime.wording import did_you_mean
from vpn.link import VlessLink
from vpn.subscription.clash import clash_config, clash_dead_end
from vpn.subscription.no_access import NoAccess, dead_link
from vpn.subscription.page import page
from vpn.subscription.qr import qr_svg
from vpn.subscription.sing_box import sing_box_config, sing_box_dead_end
from vpn.subscription.xray_json import xray_configs, xray_dead_end


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


# They read links and do not offer X25519MLKEM768, without which a REALITY node with Xray 26.9 or later refuses them.
_WITHOUT_REALITY: Final = ("shadowrocket", "nekobox", "nekoray")


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


def connects_over_reality(user_agent: str) -> bool:
    """Whether this program, by the request's header, connects to a REALITY node, if it reads links at all."""
    return not user_agent.strip().lower().startswith(_WITHOUT_REALITY)


def plain_list(links: Sequence[VlessLink]) -> bytes:
    """The links, one a line; every line has its end."""
    return "".join(f"{link.render()}\n" for link in links).encode()


def base64_list(links: Sequence[VlessLink]) -> bytes:
    """The links joined by newlines, in standard Base64 with padding, on one line."""
    return base64.b64encode("\n".join(link.render() for link in links).encode())


_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"
_YAML = "text/yaml; charset=utf-8"
_HTML = "text/html; charset=utf-8"


def render(
    links: Sequence[VlessLink],
    format_: Format,
    *,
    title: str = "ATLAS",
    url: str = "",
    language: str = "ru",
    no_access: NoAccess = NoAccess.NO_SERVER,
) -> Body:
    """The links in this form, with its content type. Without links, a configuration through which nothing passes and whose
    name says why, as `no_access` has it.

    `url` is the subscription's own address, for the page and the QR code; without one they show the first link. `title` is
    for the page alone. `language` is `ru`, else the words are English. Raises LinkError for a link that the form cannot say.
    """
    if not links:
        return _dead_end(no_access.text(language), format_, title, url, language)
    match format_:
        case Format.BASE64:
            return Body(base64_list(links), _TEXT)
        case Format.PLAIN:
            return Body(plain_list(links), _TEXT)
        case Format.SING_BOX:
            return Body(sing_box_config(links), _JSON)
        case Format.CLASH:
            return Body(clash_config(links), _YAML)
        case Format.XRAY:
            return Body(xray_configs(links), _JSON)
        case Format.HTML:
            return Body(page(links, title, url, language), _HTML)
        case Format.QR:
            return Body(qr_svg(url or links[0].render()).encode(), "image/svg+xml")


def _dead_end(why: str, format_: Format, title: str, url: str, language: str) -> Body:
    match format_:
        case Format.SING_BOX:
            return Body(sing_box_dead_end(why), _JSON)
        case Format.CLASH:
            return Body(clash_dead_end(why), _YAML)
        case Format.XRAY:
            return Body(xray_dead_end(why), _JSON)
        case Format.HTML:
            return Body(page([], title, url, language, why), _HTML)
        case Format.BASE64 | Format.PLAIN | Format.QR:
            return render([dead_link(why)], format_, url=url)
