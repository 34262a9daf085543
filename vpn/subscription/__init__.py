"""A customer's links in the forms that programs read.

Promise: pure, without network, clock or database; a link that a form cannot express is refused with LinkError, never half
expressed, and without links each form is a dead end that says why, never an empty list or a way past the VPN. Entry points:
the names below (`choose_format`, `render`, `headers` and the QR codes). For the gateway and `atlas subscription`.
"""

from vpn.subscription.headers import SubscriptionFacts, headers
from vpn.subscription.no_access import NoAccess
from vpn.subscription.qr import qr_svg, qr_terminal
from vpn.subscription.render import Body, Format, UnknownFormat, choose_format, connects_over_reality, render

__all__ = [
    "Body",
    "Format",
    "NoAccess",
    "SubscriptionFacts",
    "UnknownFormat",
    "choose_format",
    "connects_over_reality",
    "headers",
    "qr_svg",
    "qr_terminal",
    "render",
]
