"""A shop under 54-FZ sends a receipt with each payment: to the customer's contact if there is one, which no log ever shows."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from actors.payments.events import ProviderAway
from actors.payments.provider import ProviderRefused
from actors.payments.settings import PaymentSettings, YooKassaSettings
from db.billing.orders import find_order, normalised_contact, open_order, open_topup
from db.customers import add_customer
from db.errors import BusinessError
from db.money import Money
from db.tx import Tx
from tests.actors.payments.payment_fixtures import Harness, harness

SHOP = "kassa@shop.example"
CUSTOMER = "anna.k@mail.example"


def under_54fz(settings: PaymentSettings) -> PaymentSettings:
    changed = attrs.evolve(settings.yookassa, receipt_vat_code=1, receipt_contact=SHOP, receipt_tax_system=2)
    return attrs.evolve(settings, yookassa=changed)


async def asked_with(here: Harness, contact: str, *, topup: bool = False) -> dict[str, Any]:
    """What YooKassa is sent as the receipt of an order with that contact."""

    async def place(tx: Tx) -> int:
        await add_customer(tx, 1001)
        key = f"{contact} {topup}"
        if topup:
            return (await open_topup(tx, 1001, Money(50000), idempotency_key=key, receipt_contact=contact)).id
        return (await open_order(tx, 1001, "basic", 30, idempotency_key=key, receipt_contact=contact)).id

    order = await here.run(place)
    invoice = await here.invoice("yookassa", await here.run(find_order, order))
    receipt = here.outside.yookassa.payments[invoice.invoice_id or ""]["receipt"]
    assert isinstance(receipt, dict)
    return receipt


async def test_a_payment_goes_with_its_receipt_to_the_customer_or_to_the_shop(database_dsn: str) -> None:
    async with harness(database_dsn, change=under_54fz) as here:
        here.outside.yookassa.is_under_54fz = True
        receipt = await asked_with(here, CUSTOMER)
        assert receipt["customer"] == {"email": CUSTOMER}
        assert receipt["tax_system_code"] == 2
        [item] = receipt["items"]
        assert item == {
            "description": "basic 30 d, order 1",
            "quantity": "1.00",
            "amount": {"value": "149.00", "currency": "RUB"},
            "vat_code": 1,
            "payment_subject": "service",
            "payment_mode": "full_payment",
        }
        assert (await asked_with(here, "+7 (900) 000-00-01"))["customer"] == {"phone": "79000000001"}
        assert (await asked_with(here, "", topup=True))["customer"] == {"email": SHOP}


async def test_without_a_receipt_such_a_shop_is_refused_each_payment(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        here.outside.yookassa.is_under_54fz = True
        with pytest.raises(ProviderRefused, match="Receipt is missing or illegal"):
            await here.invoice("yookassa", await here.order("yookassa"))


async def test_a_contact_is_in_no_error_no_event_no_record_and_no_audit_row(database_dsn: str) -> None:
    async with harness(database_dsn, change=under_54fz) as here:
        here.outside.yookassa.is_under_54fz = True
        here.outside.yookassa.refuses_contacts = True
        with pytest.raises(ProviderRefused) as refused:
            await asked_with(here, CUSTOMER)
        assert CUSTOMER not in str(refused.value) and "…" in str(refused.value)
        here.outside.yookassa.refuses_contacts = False
        await asked_with(here, CUSTOMER)
        assert CUSTOMER not in repr(here.events) and not [e for e in here.events if isinstance(e, ProviderAway)]
        assert SHOP not in repr(here.outside.settings)
        shown = await here.value(
            """
            SELECT string_agg(row::text, '') FROM (SELECT to_jsonb(a) AS row FROM audit a UNION ALL
                SELECT to_jsonb(o) FROM outbox o UNION ALL SELECT to_jsonb(c) FROM cases c) rows
            """
        )
        assert CUSTOMER not in str(shown)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "anna",
        "a@b",
        "a b@mail.example",
        "анна@mail.example",
        "+7 900",
        "1" * 16,
        "x" * 250 + "@mail.example",
        "\0@m.ru",
    ],
)
def test_what_is_no_contact_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(BusinessError) as refused:
        normalised_contact(text)
    assert not text or text not in str(refused.value).replace("+7 900 000-00-00", "")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"receipt_vat_code": 1}, "receipt_contact is not set"),
        ({"receipt_contact": SHOP}, "receipt_vat_code is not set"),
        ({"receipt_tax_system": 1}, "receipt_vat_code"),
        ({"receipt_vat_code": 1, "receipt_contact": "nobody"}, "receipt_contact cannot be used"),
        ({"receipt_vat_code": 13, "receipt_contact": SHOP}, "receipt_vat_code"),
    ],
)
def test_a_receipt_that_is_set_by_half_is_refused_before_the_start(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        YooKassaSettings(**settings)
    assert SHOP not in str(refused.value)
