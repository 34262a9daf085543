"""A customer's links in the forms that programs read. Pure: no network, no clock, no database."""

from vpn.subscription.formats import Body, Format, UnknownFormat, choose_format
from vpn.subscription.headers import Facts, headers
from vpn.subscription.qr import qr_svg, qr_terminal
from vpn.subscription.render import render

__all__ = ["Body", "Facts", "Format", "UnknownFormat", "choose_format", "headers", "qr_svg", "qr_terminal", "render"]
