"""The `[shop]` table: who may act as a shop front end, and what subscription links say."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from attrs.validators import ge, le, matches_re, max_len

from actors.shop.signature import read_keys
from runtime.config import Secret, settings

_ADDRESS = r"(https?://[!-~]+[^/])?"


@settings("shop")
@attrs.frozen
class ShopSettings:
    """What the gateway serves beside payments. Without keys it serves no front end; subscription links always work."""

    keys: Secret = attrs.field(factory=lambda: Secret(""))
    """Lines `name secret`; a secret has at least 32 characters. A front end's next key is a line with another name."""
    public_url: str = attrs.field(default="", validator=matches_re(_ADDRESS))
    """The gateway as customers reach it, such as https://vpn.example, without a slash at its end."""
    title: str = "ATLAS"
    """What customers' programs call the subscription; they show 25 characters at most."""
    support_url: str = attrs.field(default="", validator=matches_re(_ADDRESS))
    """Where customers' programs send them for help."""
    announce: str = attrs.field(default="", validator=max_len(200))
    """A line that customers' programs show beside the subscription, such as a notice of maintenance; 200 characters at most."""
    update_hours: int = attrs.field(default=12, validator=[ge(1), le(720)])
    """How often customers' programs fetch the links again."""

    def check_configuration(self) -> Iterable[str]:
        """Refuse keys that cannot be read, or a name given twice; a secret is never shown."""
        try:
            read_keys(self.keys.reveal())
        except ValueError as error:
            yield f"shop.keys: {error}"
