"""The body of an answer, in the form that was chosen."""

from __future__ import annotations

from collections.abc import Sequence

from vpn.errors import LinkError
from vpn.link import VlessLink
from vpn.subscription.clash import clash_config
from vpn.subscription.formats import Body, Format
from vpn.subscription.lists import base64_list, plain_list
from vpn.subscription.page import page
from vpn.subscription.qr import qr_svg
from vpn.subscription.sing_box import sing_box_config
from vpn.subscription.xray_json import xray_configs

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"


def render(
    links: Sequence[VlessLink], format_: Format, *, title: str = "ATLAS", url: str = "", language: str = "ru"
) -> Body:
    """The links in this form, with its content type. Without links the form is valid and empty, and not an error.

    `url` is the subscription's own address, for the page and the QR code; without one they show the first link. `title`
    and `language` (`ru`, else English) are for the page alone. Raises LinkError for a link that the form cannot say, and
    for a QR code of nothing.
    """
    match format_:
        case Format.BASE64:
            return Body(base64_list(links), _TEXT)
        case Format.PLAIN:
            return Body(plain_list(links), _TEXT)
        case Format.SING_BOX:
            return Body(sing_box_config(links), _JSON)
        case Format.CLASH:
            return Body(clash_config(links), "text/yaml; charset=utf-8")
        case Format.XRAY:
            return Body(xray_configs(links), _JSON)
        case Format.HTML:
            return Body(page(links, title, url, language), "text/html; charset=utf-8")
        case Format.QR:
            if not url and not links:
                raise LinkError("there is no link to make a QR code of")
            return Body(qr_svg(url or links[0].render()).encode(), "image/svg+xml")
