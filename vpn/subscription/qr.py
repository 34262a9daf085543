"""QR codes of links and addresses, for a page, for a terminal and as a picture."""

from __future__ import annotations

import io

import segno

from vpn.errors import LinkError


def qr_svg(text: str) -> str:
    """An SVG image, dark on white, with its quiet zone; it scales. Raises LinkError if the text is too long for a code."""
    image = io.BytesIO()
    _code(text).save(image, kind="svg", scale=6, light="#fff", dark="#000", xmldecl=False, nl=False)
    return image.getvalue().decode()


def qr_terminal(text: str) -> str:
    """Lines of half blocks, two rows of the code in each; light on dark, as terminals are. Raises LinkError likewise."""
    lines = io.StringIO()
    _code(text).terminal(lines, border=2, compact=True)
    return lines.getvalue()


def qr_png(text: str) -> bytes:
    """A PNG image, dark on white, with its quiet zone. Raises LinkError likewise."""
    image = io.BytesIO()
    _code(text).save(image, kind="png", scale=8, light="#fff", dark="#000")
    return image.getvalue()


def _code(text: str) -> segno.QRCode:
    try:
        # no Micro QR: cameras of telephones do not read it
        return segno.make_qr(text, error="l", encoding="utf-8", boost_error=True)
    except segno.DataOverflowError:
        raise LinkError(f"{len(text)} characters are too long for a QR code") from None
