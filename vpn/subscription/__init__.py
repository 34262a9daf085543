"""A customer's links in the forms that programs read.

Promise: pure, without network, clock or database; a link that a form cannot express is refused with LinkError, never half
expressed. Entry points: the names below (`choose_format`, `render`, `headers` and the QR codes). For the gateway and
`atlas subscription`.
"""

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
