"""`[payments]`: which providers are on, and how they are reached. A provider without credentials is off."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Final, Literal

import attrs

from actors.payments.heleket import HeleketSettings
from actors.payments.platega import PlategaSettings
from actors.payments.provider import half_configured
from actors.payments.quotes import PaidInRoubles, RateSettings
from db.billing.orders import normalised_contact
from db.errors import BusinessError
from runtime.config import Secret, settings

_SECRET_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,256}")


@attrs.frozen
class RateSourceSettings:
    """`[payments.rates]`: who is asked what assets are worth."""

    source: Literal["", "cryptobot"] = ""
    """A provider that is on. Empty: nobody; `atlas rates set` keeps the table."""
    every: float = attrs.field(default=120.0, validator=attrs.validators.ge(1))
    """Seconds between two questions."""


@attrs.frozen
class TelegramPaymentSettings(RateSettings):
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
    url: str = "https://api.telegram.org"
    """The Bot API."""

    def check_configuration(self) -> Iterable[str]:
        """Refuse credentials by half."""
        if self.token and self.mode == "webhook" and not _SECRET_TOKEN.fullmatch(self.webhook_secret.reveal()):
            wanted = '1 to 256 characters of A-Z, a-z, 0-9, _ and -, or mode = "polling"'
            yield half_configured("telegram", "webhook_secret_file", wanted)


@attrs.frozen
class CryptoBotSettings(RateSettings):
    """`[payments.cryptobot]`: Crypto Pay."""

    token: Secret = attrs.field(factory=Secret)
    """The app's API token, which also signs its webhooks. Without it, CryptoBot is off."""
    previous_token: Secret = attrs.field(factory=Secret)
    """Webhooks signed with it are accepted as well."""
    asset: str = "USDT"
    """What invoices are quoted in."""
    url: str = "https://pay.crypt.bot"
    """The Crypto Pay API; `https://testnet-pay.crypt.bot` is its test network."""

    def check_configuration(self) -> Iterable[str]:
        """Its token is all that it needs."""
        return ()


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
class YooKassaSettings(PaidInRoubles):
    """`[payments.yookassa]`: YooKassa."""

    shop_id: str = ""
    secret_key: Secret = attrs.field(factory=Secret)
    """Without it, YooKassa is off."""
    return_url: str = ""
    """Where the customer comes back to after paying."""
    networks: tuple[str, ...] = YOOKASSA_NETWORKS
    """Notifications from elsewhere are refused."""
    receipt_vat_code: int = attrs.field(default=0, validator=attrs.validators.in_(range(13)))
    """The VAT code of what is sold, 1 to 12 by YooKassa's list; for a shop under 54-FZ, whose payments need a receipt each."""
    receipt_contact: str = attrs.field(default="", repr=False)
    """An e-mail address or phone number of the shop, for receipts of customers who gave none. Needed with `receipt_vat_code`."""
    receipt_subject: Literal["service", "commodity", "job", "payment", "another"] = "service"
    """What is sold (`payment_subject`)."""
    receipt_mode: Literal[
        "full_payment",
        "full_prepayment",
        "partial_prepayment",
        "advance",
        "partial_payment",
        "credit",
        "credit_payment",
    ] = "full_payment"
    """How it is paid (`payment_mode`)."""
    receipt_tax_system: int = attrs.field(default=0, validator=attrs.validators.in_(range(7)))
    """The shop's tax system, 1 to 6; 0 if it has but one."""
    url: str = "https://api.yookassa.ru"

    def __attrs_post_init__(self) -> None:
        """Refuse a receipt by half: YooKassa would refuse every payment, or the tax office every receipt."""
        if self.receipt_contact:
            try:
                normalised_contact(self.receipt_contact)
            except BusinessError as error:
                raise ValueError(f"receipt_contact cannot be used: {error}") from error
        if bool(self.receipt_vat_code) != bool(self.receipt_contact):
            missing = "receipt_contact" if self.receipt_vat_code else "receipt_vat_code"
            raise ValueError(f"a receipt needs receipt_vat_code and receipt_contact, and {missing} is not set")
        if not self.receipt_vat_code and self.receipt_tax_system:
            raise ValueError("receipt_tax_system is set, and without receipt_vat_code no receipt is sent")

    def check_configuration(self) -> Iterable[str]:
        """Refuse credentials by half."""
        if not self.secret_key:
            return
        if not self.shop_id:
            yield half_configured("yookassa", "shop_id", "the shop's number")
        if not self.return_url:
            yield half_configured("yookassa", "return_url", "where the customer comes back to")
        try:
            for network in self.networks:
                ip_network(network)
        except ValueError as error:
            yield half_configured("yookassa", "networks", f"networks such as 185.71.76.0/27: {error}")


@attrs.frozen
class StripeSettings(RateSettings):
    """`[payments.stripe]`: Stripe Checkout."""

    secret_key: Secret = attrs.field(factory=Secret)
    """Without it and `webhook_secret`, Stripe is off."""
    webhook_secret: Secret = attrs.field(factory=Secret)
    """The endpoint's signing secret (`whsec_…`)."""
    previous_webhook_secret: Secret = attrs.field(factory=Secret)
    """Accepted as well. Stripe signs with both itself while a secret is rolled."""
    asset: Literal["RUB", "USD", "EUR"] = "USD"
    success_url: str = ""
    cancel_url: str = ""
    """Where the customer comes back to."""
    url: str = "https://api.stripe.com"

    def check_configuration(self) -> Iterable[str]:
        """Refuse credentials by half."""
        if not (self.secret_key or self.webhook_secret):
            return
        if not (self.secret_key and self.webhook_secret):
            missing = "webhook_secret_file" if self.secret_key else "secret_key_file"
            yield half_configured("stripe", missing, "both of its secrets")
        if not self.success_url:
            yield half_configured("stripe", "success_url", "where the customer comes back to")


@settings("payments")
@attrs.frozen
class PaymentSettings:
    """`[payments]`: the providers. Each is off until it has its credentials."""

    telegram: TelegramPaymentSettings = attrs.field(factory=TelegramPaymentSettings)
    cryptobot: CryptoBotSettings = attrs.field(factory=CryptoBotSettings)
    yookassa: YooKassaSettings = attrs.field(factory=YooKassaSettings)
    stripe: StripeSettings = attrs.field(factory=StripeSettings)
    platega: PlategaSettings = attrs.field(factory=PlategaSettings)
    heleket: HeleketSettings = attrs.field(factory=HeleketSettings)
    rates: RateSourceSettings = attrs.field(factory=RateSourceSettings)

    def check_configuration(self) -> Iterable[str]:
        """Refuse a provider that is configured by half, and a source of rates that is off."""
        providers = (self.telegram, self.cryptobot, self.yookassa, self.stripe, self.platega, self.heleket)
        for provider in providers:
            yield from provider.check_configuration()
        source = self.rates.source
        if source == "cryptobot" and not self.cryptobot.token:
            yield (
                f'payments.rates.source = "{source}" is off: it needs payments.{source} with its credentials, or leave source out'
            )
