"""A customer's links in the forms that programs read. Pure: no network, no clock, no database."""

from vpn.subscription.headers import SubscriptionFacts, headers
from vpn.subscription.qr import qr_svg, qr_terminal
from vpn.subscription.render import Body, Format, UnknownFormat, choose_format, render

__all__ = [
    "Body",
    "Format",
    "SubscriptionFacts",
    "UnknownFormat",
    "choose_format",
    "headers",
    "qr_svg",
    "qr_terminal",
    "render",
]
