"""QR codes: what is painted is read back, in an image and in a terminal."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings

from tests.vpn.subscription.qr_reader import Matrix, read_qr, without_border
from tests.vpn.subscription.samples import links
from vpn.errors import LinkError
from vpn.link import VlessLink
from vpn.subscription import Format, qr_svg, qr_terminal, render

BLOCKS = {"█": (False, False), "▀": (False, True), "▄": (True, False), " ": (True, True)}


def of_terminal(text: str) -> Matrix:
    """The code that a terminal with a dark ground shows: a block is light."""
    rows: Matrix = []
    for line in text.splitlines():
        rows.append([BLOCKS[character][0] for character in line])
        rows.append([BLOCKS[character][1] for character in line])
    return rows[:-1] if len(rows) > len(rows[0]) else rows  # the lower half of the last line is outside of it


def of_svg(text: str) -> Matrix:
    """The code that an SVG image paints: dark strokes, each one row high, on a light ground."""
    root = ET.fromstring(text)  # noqa: S314 - our own image
    paths = list(root.iter("{http://www.w3.org/2000/svg}path"))
    light, dark = paths
    assert light.get("fill") == "#fff" and dark.get("stroke") == "#000"
    size = int(root.get("width") or 0) // 6
    rows = [[False] * size for _ in range(size)]
    x = y = 0.0
    for command, numbers in re.findall(r"([Mmh])([-\d. ]+)", dark.get("d") or ""):
        values = [float(number) for number in re.findall(r"-?[\d.]+", numbers)]
        if command == "M":
            x, y = values
        elif command == "m":
            x, y = x + values[0], y + values[1]
        else:
            for at in range(int(x), int(x + values[0])):
                rows[int(y)][at] = True
            x += values[0]
    return rows


@settings(deadline=None, max_examples=20)  # a busy machine is not a failure
@given(links)
def test_a_code_of_any_link_is_read_back(link: VlessLink) -> None:
    text = link.render()
    if len(text) > 600:  # the reader's tables end at version 20
        return
    assert read_qr(without_border(of_terminal(qr_terminal(text)))) == text
    assert read_qr(without_border(of_svg(qr_svg(text)))) == text


def test_the_image_has_a_quiet_zone() -> None:
    rows = of_svg(qr_svg("https://shop.example/s/token"))
    assert len(rows) == len(without_border(rows)) + 8


def test_a_code_shows_the_subscriptions_address_rather_than_one_link() -> None:
    body = render([], Format.QR, url="https://shop.example/s/token")
    assert body.content_type == "image/svg+xml"
    assert read_qr(without_border(of_svg(body.content.decode()))) == "https://shop.example/s/token"


def test_too_much_for_a_code_is_refused() -> None:
    with pytest.raises(LinkError, match="too long"):
        qr_svg("x" * 3000)
