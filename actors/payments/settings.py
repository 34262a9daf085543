"""`[payments]`: which providers are on, and how they are reached. A provider without credentials is off."""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs

from runtime.config import Secret, settings


@attrs.frozen
class TelegramPaymentSettings:
    """`[payments.telegram]`: Telegram Payments and Stars."""

    token: Secret = attrs.field(factory=Secret)
    """The bot's token. Without it, Telegram is off."""
    mode: Literal["webhook", "polling"] = "webhook"
    """How updates arrive: Telegram calls us, or we ask it."""
    webhook_url: str = ""
    """The public https address of `/payments/telegram`; if set, it is registered with Telegram at the start."""
    webhook_secret: Secret = attrs.field(factory=Secret)
    """What Telegram sends in `X-Telegram-Bot-Api-Secret-Token`: 1 to 256 of A-Z, a-z, 0-9, _ and -."""
    previous_webhook_secret: Secret = attrs.field(factory=Secret)
    """Accepted as well, while a new secret is being rolled out."""
    provider_token: Secret = attrs.field(factory=Secret)
    """The payment provider's token from BotFather; none for Stars."""
    asset: str = "XTR"
    """What invoices are quoted in: XTR (Stars), or the currency of the payment provider behind `provider_token`."""
    rate: str = ""
    """Roubles for one whole unit of `asset`, as decimal text. Not needed for RUB."""
    url: str = "https://api.telegram.org"
    """The Bot API."""


@attrs.frozen
class CryptoBotSettings:
    """`[payments.cryptobot]`: Crypto Pay."""

    token: Secret = attrs.field(factory=Secret)
    """The app's API token, which also signs its webhooks. Without it, CryptoBot is off."""
    previous_token: Secret = attrs.field(factory=Secret)
    """Webhooks signed with it are accepted as well."""
    asset: str = "USDT"
    """What invoices are quoted in."""
    rate: str = ""
    """Roubles for one whole unit of `asset`, as decimal text."""
    url: str = "https://pay.crypt.bot"
    """The Crypto Pay API; `https://testnet-pay.crypt.bot` is its test network."""


YOOKASSA_NETWORKS = (
    "185.71.76.0/27",
    "185.71.77.0/27",
    "77.75.153.0/25",
    "77.75.156.11/32",
    "77.75.156.35/32",
    "77.75.154.128/25",
    "2a02:5180::/32",
)
"""Where YooKassa's notifications come from, by its documentation."""


@attrs.frozen
class YooKassaSettings:
    """`[payments.yookassa]`: YooKassa."""

    shop_id: str = ""
    secret_key: Secret = attrs.field(factory=Secret)
    """Without it, YooKassa is off."""
    return_url: str = ""
    """Where the customer comes back to after paying."""
    networks: tuple[str, ...] = YOOKASSA_NETWORKS
    """Notifications from elsewhere are refused."""
    url: str = "https://api.yookassa.ru"
    asset: ClassVar[str] = "RUB"
    rate: ClassVar[str] = ""


@attrs.frozen
class StripeSettings:
    """`[payments.stripe]`: Stripe Checkout."""

    secret_key: Secret = attrs.field(factory=Secret)
    """Without it and `webhook_secret`, Stripe is off."""
    webhook_secret: Secret = attrs.field(factory=Secret)
    """The endpoint's signing secret (`whsec_…`)."""
    previous_webhook_secret: Secret = attrs.field(factory=Secret)
    """Accepted as well. Stripe signs with both itself while a secret is rolled."""
    asset: Literal["RUB", "USD", "EUR"] = "USD"
    rate: str = ""
    """Roubles for one whole unit of `asset`, as decimal text."""
    success_url: str = ""
    cancel_url: str = ""
    """Where the customer comes back to."""
    url: str = "https://api.stripe.com"


@settings("payments")
@attrs.frozen
class PaymentSettings:
    """`[payments]`: the providers. Each is off until it has its credentials."""

    telegram: TelegramPaymentSettings = attrs.field(factory=TelegramPaymentSettings)
    cryptobot: CryptoBotSettings = attrs.field(factory=CryptoBotSettings)
    yookassa: YooKassaSettings = attrs.field(factory=YooKassaSettings)
    stripe: StripeSettings = attrs.field(factory=StripeSettings)
