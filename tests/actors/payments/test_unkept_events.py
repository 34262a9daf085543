"""An authentic event with an id or a text that PostgreSQL cannot keep is kept all the same, with a case; no log quotes it."""

from __future__ import annotations

import json

import pytest

from actors.payments.events import EventFailed
from tests.actors.payments.payment_fixtures import Harness, harness
from tests.actors.payments.test_authenticity import cryptobot, stripe
from tests.actors.payments.test_every_provider import PAY

MARK = "seen-by-nobody"
BAD = {
    "nul": f"evt_\0{MARK}",
    "half a character": f"evt_\ud800{MARK}",
    "over-long": f"evt_{MARK}" + "x" * 5000,
    "blank": "  ",
}


async def refused(here: Harness) -> None:
    """One event is kept, failed, with a case; and nothing that was emitted or noted quotes what was in it."""
    assert await here.value("SELECT state FROM provider_events") == "failed"
    assert await here.value("SELECT count(*) FROM cases WHERE kind = 'provider_event'") == 1
    assert (await here.until_event(EventFailed)).provider
    shown = repr(here.events) + str(await here.value("SELECT string_agg(to_jsonb(c)::text, '') FROM cases c"))
    assert MARK not in shown + str(
        await here.value("SELECT string_agg(coalesce(last_error, ''), '') FROM provider_events")
    )
    assert (await here.counts())[:2] == (0, 0)


@pytest.mark.parametrize("name", BAD)
async def test_an_id_that_cannot_be_kept_is_answered_and_not_lost(database_dsn: str, name: str) -> None:
    async with harness(database_dsn) as here:
        body = json.dumps({"id": BAD[name], "type": "x", "data": {"object": {}}}).encode()
        for _ in range(2):
            answer = await here.deliver("stripe", stripe(body))
            assert (answer.status_code, answer.json()["state"]) == (200, "failed")
        await refused(here)
        assert await here.value("SELECT body FROM provider_events") == body


@pytest.mark.parametrize("name", BAD)
async def test_so_is_one_of_cryptobot(database_dsn: str, name: str) -> None:
    async with harness(database_dsn) as here:
        body = json.dumps({"update_type": "invoice_paid", "payload": {"invoice_id": BAD[name] * 2}}).encode()
        answer = await here.deliver("cryptobot", cryptobot(body))
        assert (answer.status_code, answer.json()["state"]) == (200, "failed")
        await refused(here)


@pytest.mark.parametrize("name", BAD)
async def test_a_charge_whose_name_cannot_be_kept_is_a_case(database_dsn: str, name: str) -> None:
    async with harness(database_dsn) as here:
        await here.order("stripe")
        paid = {"id": BAD[name], "amount_received": 161, "currency": "usd", "metadata": {"order": "order:1"}}
        for kind, thing in (
            ("payment_intent.succeeded", paid),
            ("charge.dispute.created", {"id": "du_1", "amount": 1, "currency": "usd", "payment_intent": BAD[name]}),
            ("checkout.session.expired", {"id": BAD[name]}),
        ):
            body = json.dumps({"id": f"evt_{kind}", "type": kind, "data": {"object": thing}}).encode()
            answer = await here.deliver("stripe", stripe(body))
            assert (answer.status_code, answer.json()["state"]) == (200, "failed"), kind
        shown = repr(here.events) + str(await here.value("SELECT string_agg(to_jsonb(c)::text, '') FROM cases c"))
        assert MARK + "x" * 40 not in shown


async def test_a_text_beside_the_money_that_cannot_be_kept_does_not_hold_up_the_money(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("cryptobot", await here.order("cryptobot"))
        event = PAY["cryptobot"](here, invoice.pay_url or "", 1001)
        update = json.loads(event.body)
        update["payload"]["comment"] = "a\0b\ud800"
        assert (await here.deliver("cryptobot", cryptobot(json.dumps(update).encode()))).json()[
            "result"
        ] == "entitlement"
