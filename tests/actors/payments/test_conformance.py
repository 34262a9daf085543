"""What every payment provider must do, whichever it is: one table of contracts, and each promise tried on each of them.

What is particular to one stands in its own row; a new provider gets a row here, and nothing else of this file changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from actors.payments.events import LatePayment, ProviderAway
from actors.payments.provider import ProviderRefused, ProviderUnavailable
from actors.payments.registry import ADAPTERS, close_providers, open_providers
from actors.payments.settings import PaymentSettings
from db.billing.invoices import Invoice
from db.billing.provider_refunds import ProviderRefund
from db.money import Money
from runtime import StartRefused
from runtime.config import Secret
from simulators.delivery import Event
from tests.actors.payments.payment_fixtures import (
    CRYPTOBOT_TOKEN,
    HELEKET_KEY,
    PLATEGA_SECRET,
    STRIPE_KEY,
    STRIPE_SECRET,
    TELEGRAM_TOKEN,
    WEBHOOK_SECRET,
    YOOKASSA_KEY,
    Harness,
    harness,
    outside,
)
from tests.actors.payments.test_every_provider import PAY, QUOTES
from tests.actors.payments.test_orders_of_events import result_of
from tests.actors.payments.test_payment_watcher import look

DOCS = Path(__file__).parents[3] / "docs"
SECRETS = (
    *(CRYPTOBOT_TOKEN, HELEKET_KEY, PLATEGA_SECRET, STRIPE_KEY, STRIPE_SECRET, TELEGRAM_TOKEN, WEBHOOK_SECRET),
    YOOKASSA_KEY,
)
OLD = "the-secret-before"


@attrs.frozen
class Contract:
    """What is particular to one provider."""

    name: str
    proof: str = ""
    """The header that proves a delivery; empty if nothing in it does, and it is only believed what the provider shows."""
    rotated: str = ""
    """The setting that keeps a secret acceptable while it is replaced."""
    needed: tuple[str, ...] = ()
    """Settings without which it must not start, though it has its credentials."""
    shelf: str = ""
    """Where the simulator keeps what can be asked about; empty if it cannot be asked."""
    page_end: Callable[[Harness, Invoice], float] | None = None
    """The seconds that the page was told to live; None if the provider cannot be told."""
    lapses: Callable[[Harness, Invoice], object] | None = None
    """It becomes impossible to pay the invoice."""


def stripe_page(here: Harness, invoice: Invoice) -> float:
    return float(str(here.outside.stripe.sessions[invoice.invoice_id or ""]["expires_at"])) - time.time()


def cryptobot_page(here: Harness, invoice: Invoice) -> float:
    until = str(here.outside.cryptobot.invoices[int(invoice.invoice_id or 0)]["expiration_date"])
    return datetime.fromisoformat(until).timestamp() - datetime.now(UTC).timestamp()


def heleket_page(here: Harness, invoice: Invoice) -> float:
    return float(str(here.outside.heleket.invoices[invoice.invoice_id or ""]["expired_at"])) - time.time()


CONTRACTS = {
    contract.name: contract
    for contract in (
        Contract("telegram", "X-Telegram-Bot-Api-Secret-Token", "previous_webhook_secret", ("webhook_secret",)),
        Contract(
            "cryptobot",
            "crypto-pay-api-signature",
            "previous_token",
            shelf="invoices",
            page_end=cryptobot_page,
            lapses=lambda here, invoice: here.outside.cryptobot.expire(int(invoice.invoice_id or 0)),
        ),
        Contract(
            "yookassa",
            needed=("shop_id", "return_url"),
            shelf="payments",
            lapses=lambda here, invoice: here.outside.yookassa.cancel(invoice.invoice_id or ""),
        ),
        Contract(
            "stripe",
            "Stripe-Signature",
            "previous_webhook_secret",
            ("webhook_secret", "success_url"),
            "sessions",
            stripe_page,
            lambda here, invoice: here.outside.stripe.expire(invoice.invoice_id or ""),
        ),
        Contract(
            "platega",
            "X-Secret",
            "previous_secret",
            ("merchant_id", "return_url"),
            "transactions",
            lapses=lambda here, invoice: here.outside.platega.become(invoice.invoice_id or "", "CANCELED"),
        ),
        Contract(
            "heleket",
            rotated="previous_payment_key",
            needed=("merchant", "callback_url"),
            shelf="invoices",
            page_end=heleket_page,
            lapses=lambda here, invoice: here.outside.heleket.become(invoice.invoice_id or "", "cancel"),
        ),
    )
}
WATCHED = [name for name, contract in CONTRACTS.items() if contract.shelf]


async def opened(here: Harness, name: str, key: str = "click") -> Invoice:
    return await here.invoice(name, await here.order(name, key=key))


def paid(here: Harness, invoice: Invoice) -> Event:
    return PAY[invoice.provider](here, invoice.pay_url or "", 1001)


def link_of(name: str, number: str, thing: dict[str, Any]) -> str:
    """Where the customer pays what the simulator keeps under that number."""
    if name == "yookassa":
        return str(thing["confirmation"]["confirmation_url"])
    if name == "platega":
        return f"https://pay.platega.example/?id={number}"
    return str(thing["bot_invoice_url" if name == "cryptobot" else "url"])


def table_of(settings: PaymentSettings, name: str, **changes: Any) -> PaymentSettings:
    return attrs.evolve(settings, **{name: attrs.evolve(getattr(settings, name), **changes)})


def test_every_provider_has_a_contract_a_table_and_a_page() -> None:
    names = [adapter.name for adapter in ADAPTERS]
    assert names == list(CONTRACTS) == list(PAY) == list(QUOTES)
    fields = attrs.fields_dict(PaymentSettings)
    assert not [name for name in names if name not in fields]
    for page in ("howto/payments.md", "reference/payments.md", "reference/payment-providers.md"):
        text = (DOCS / page).read_text().lower()
        assert not [name for name in names if name not in text], page


@pytest.mark.parametrize("name", CONTRACTS)
async def test_it_is_off_without_credentials_and_refuses_to_start_with_half_of_them(name: str) -> None:
    assert name not in open_providers(PaymentSettings())
    async with outside() as here:
        whole = open_providers(here.settings)
        await close_providers(whole)
        assert name in whole
        for key in CONTRACTS[name].needed:
            empty = Secret() if "secret" in key else ""
            with pytest.raises(StartRefused, match=rf"payments\.{name}\.{key}"):
                open_providers(table_of(here.settings, name, **{key: empty}))


@pytest.mark.parametrize("name", CONTRACTS)
async def test_a_payment_counts_once_however_often_it_is_told(database_dsn: str, name: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await opened(here, name)
        assert invoice.amount == QUOTES[name]
        event = paid(here, invoice)
        for _ in range(3):
            assert (await here.deliver(name, event)).json() == {"state": "processed", "result": "entitlement"}
        assert await here.counts() == (1, 1, 0)
        assert await here.value("SELECT provider FROM money_in") == name
        assert await here.value("SELECT state FROM invoices") == "paid"


@pytest.mark.parametrize("name", CONTRACTS)
async def test_what_is_not_authentic_leaves_no_trace_and_moves_no_money(database_dsn: str, name: str) -> None:
    async with harness(database_dsn) as here:
        contract = CONTRACTS[name]
        event = paid(here, await opened(here, name))
        forged = [
            Event(event.body, {}),
            Event(event.body, {contract.proof or "x": "0" * 64}),
            Event(b"{}", event.headers),
        ]
        if name == "heleket":  # its proof is a member of the body
            forged = [
                Event(event.body.replace(b"1.610811", b"9.610811"), {}),
                Event(event.body.replace(b'"sign":"', b'"sign":"0'), {}),
                Event(event.body.replace(b'"sign"', b'"sing"'), {}),
            ]
        elif not contract.proof or name in ("telegram", "platega"):  # the body itself is not signed
            forged = forged[:2] if contract.proof else []
        for each in forged:
            assert (await here.deliver(name, each)).status_code == 401
        assert await here.value("SELECT count(*) FROM provider_events") == 0
        assert await here.counts() == (0, 0, 0)


@pytest.mark.parametrize("name", [name for name, contract in CONTRACTS.items() if contract.rotated])
async def test_while_a_secret_is_rotated_the_one_before_is_accepted(database_dsn: str, name: str) -> None:
    def rotate(settings: PaymentSettings) -> PaymentSettings:
        proof = {"telegram": "webhook_secret", "stripe": "webhook_secret", "cryptobot": "token"}.get(name, "")
        proof = proof or {"platega": "secret", "heleket": "payment_key"}[name]
        current = getattr(getattr(settings, name), proof)
        return table_of(settings, name, **{CONTRACTS[name].rotated: current, proof: Secret("a-new_one")})

    async with harness(database_dsn) as here:
        event = paid(here, await opened(here, name))
        async with harness(database_dsn, change=rotate) as rotated:
            kept = [(shelf, getattr(here.outside.provider(name), shelf)) for shelf in [CONTRACTS[name].shelf] if shelf]
            for shelf, things in kept:
                getattr(rotated.outside.provider(name), shelf).update(things)
            if name == "platega":
                rotated.outside.platega.secret = "a-new_one"
            assert result_of(await rotated.deliver(name, event)) == "entitlement"


@pytest.mark.parametrize("name", WATCHED)
async def test_a_payment_that_it_never_told_is_found_by_asking_and_is_the_same_one(
    database_dsn: str, name: str
) -> None:
    async with harness(database_dsn) as here:
        event = paid(here, await opened(here, name))
        watcher = await here.watcher()
        await here.move_clock(seconds=31)
        await look(here, watcher)
        assert await here.counts() == (1, 1, 0)
        assert (await here.until_event(LatePayment)).provider == name
        assert result_of(await here.deliver(name, event)) == "entitlement"
        assert await here.counts() == (1, 1, 0)


@pytest.mark.parametrize("name", WATCHED)
async def test_only_its_own_last_word_closes_an_invoice(database_dsn: str, name: str) -> None:
    async with harness(database_dsn) as here:
        lapsed, unknown = await opened(here, name, "1"), await opened(here, name, "2")
        contract = CONTRACTS[name]
        assert contract.lapses is not None
        contract.lapses(here, lapsed)
        shelf = getattr(here.outside.provider(name), contract.shelf)
        shelf.pop(int(unknown.invoice_id or 0) if name == "cryptobot" else unknown.invoice_id)
        watcher = await here.watcher()
        await here.move_clock(seconds=31)
        await look(here, watcher)
        assert await here.value("SELECT string_agg(state, ',' ORDER BY id) FROM invoices") == "closed,open"
        assert await here.counts() == (0, 0, 0)


@pytest.mark.parametrize("name", CONTRACTS)
async def test_its_page_ends_with_the_order_or_the_order_with_its_page(database_dsn: str, name: str) -> None:
    async with harness(database_dsn) as here:
        order, provider = await here.order(name), here.providers[name]
        await here.move_clock(minutes=29)
        invoice = await here.invoice(name, order)
        left = 60 + (invoice.order_ends_at - order.expires_at).total_seconds()
        shortest = provider.shortest_page
        assert shortest <= left <= max(60, shortest + 125)
        page_end = CONTRACTS[name].page_end
        if page_end is not None:
            assert max(shortest, 30) - 1 <= page_end(here, invoice) <= left + 2


@pytest.mark.parametrize("name", CONTRACTS)
async def test_while_it_is_away_the_order_waits_and_no_secret_is_told(database_dsn: str, name: str) -> None:
    async with harness(database_dsn) as here:
        order = await here.order(name)
        simulator = here.outside.provider(name)
        for status, error in ((503, ProviderUnavailable), (401, ProviderRefused)):
            simulator.troubles.before.extend([status] * 3)
            with pytest.raises(error) as refused:
                await here.invoice(name, order)
            simulator.troubles.before.clear()
            shown = str(refused.value) + repr(here.providers) + repr(here.events) + repr(here.outside.settings)
            assert not [secret for secret in SECRETS if secret in shown]
        assert result_of(await here.deliver(name, paid(here, await here.invoice(name, order)))) == "entitlement"
        assert not [event for event in here.events if isinstance(event, ProviderAway)]


@pytest.mark.parametrize("name", WATCHED)
async def test_an_invoice_whose_answer_was_lost_pays_its_order_all_the_same(database_dsn: str, name: str) -> None:
    async with harness(database_dsn) as here:
        order, simulator = await here.order(name), here.outside.provider(name)
        simulator.troubles.after.extend([500] * 3)
        with pytest.raises(ProviderUnavailable):
            await here.invoice(name, order)
        simulator.troubles.after.clear()
        shelf: dict[Any, Any] = getattr(simulator, CONTRACTS[name].shelf)
        first = next(iter(shelf))
        invoice = await here.invoice(name, order)
        has_keys = name in ("yookassa", "stripe", "heleket")
        assert len(shelf) == (1 if has_keys else 2)
        assert (str(first) == invoice.invoice_id) is has_keys
        lost = PAY[name](here, link_of(name, str(first), shelf[first]), 1001)
        assert result_of(await here.deliver(name, lost)) == "entitlement"
        assert await here.counts() == (1, 1, 0)


@pytest.mark.parametrize("name", [adapter.name for adapter in ADAPTERS if not adapter.refunds])
async def test_one_that_gives_nothing_back_says_what_to_do(database_dsn: str, name: str) -> None:
    async with harness(database_dsn) as here:
        nothing = ProviderRefund(
            1, 1, name, "c", "k", "r", Money(1), Money(1), True, False, "operator", "", "asking", None, 1, 1, ""
        )
        with pytest.raises(ProviderRefused, match="record it with `atlas refund`"):
            await here.providers[name].refund(nothing)
