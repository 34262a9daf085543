"""The main job, by its own commands: money in, ledger, key, node, packets; and out again."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from db.embedded import EmbeddedSettings, embedded_dsn
from tests.e2e import socks
from tests.e2e.changes import Watch, watch
from tests.e2e.customer import client
from tests.e2e.origin import PAGE, origin
from tests.e2e.stack import Stack, stack

BUY = ("buy", "--customer", "42", "--tariff", "basic", "--days", "30", "--provider", "manual", "--charge", "c-1")


def dsn_of(running: Stack) -> str:
    return embedded_dsn(EmbeddedSettings(data_dir=Path(running.env["ATLAS__EMBEDDED__DATA_DIR"])))


async def assert_bought_once(seen: Watch, telegram_id: int) -> None:
    """One active key, one money-in, one purchase journal, one entitlement event, and nothing the views complain about."""
    found = await seen.rows(
        """
        SELECT (SELECT count(*) FROM vpn_keys k JOIN subscriptions s ON s.id = k.subscription_id
                WHERE s.customer_id = c.id AND k.activation_status = 'active') AS active_keys,
               (SELECT count(*) FROM money_in m WHERE m.customer_id = c.id) AS money_in,
               (SELECT count(*) FROM journals j WHERE j.customer_id = c.id AND j.kind = 'purchase') AS journals,
               (SELECT count(*) FROM entitlement_events e JOIN subscriptions s ON s.id = e.subscription_id
                WHERE s.customer_id = c.id) AS events
        FROM customers c WHERE c.telegram_id = $1
        """,
        telegram_id,
    )
    assert found == [{"active_keys": 1, "money_in": 1, "journals": 1, "events": 1}]


async def assert_money_holds(seen: Watch) -> None:
    """Every money view is empty, those included that hold only at rest."""
    assert await seen.broken_invariants() == []


async def test_a_purchase_goes_live_and_a_revocation_cuts() -> None:
    async with stack(migrated=True) as here, here.running(), origin() as site, watch(dsn_of(here)) as seen:
        await here.ok("customer", "add", "42")
        bought = await here.ok(*BUY, "--amount", "14900", "--json")
        assert bought.json["result"] == "entitlement"
        await seen.until_status(42, "active")
        shown = (await here.ok("subscription", "42", "--json")).json
        assert shown["state"] == "active"
        link = str(shown["link"])
        assert link.startswith("vless://")

        async with client(here, link) as proxy:
            assert await socks.fetch(proxy, site.port) == PAGE
            open_connection = await socks.connect(proxy, "127.0.0.1", site.port)
            await open_connection.send_all(b"GET /stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\nping")
            assert b"200 OK" in await open_connection.receive_some()

            await here.ok("revoke", "42")
            with trio.fail_after(10):
                try:
                    while await open_connection.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass
            await seen.until_status(42, "removed")
            await open_connection.aclose()
            with pytest.raises(socks.Refused):
                await socks.fetch(proxy, site.port)
        assert (await here.ok("subscription", "42", "--json")).json["link"] is None
        await assert_money_holds(seen)


async def test_a_replayed_charge_is_one_purchase_and_another_amount_is_refused() -> None:
    async with stack(migrated=True) as here, here.running(), watch(dsn_of(here)) as seen:
        await here.ok("customer", "add", "42")
        first = (await here.ok(*BUY, "--amount", "14900", "--json")).json
        again = (await here.ok(*BUY, "--amount", "14900", "--json")).json
        assert (first["replayed"], again["replayed"]) == (False, True)
        assert again["money_in"] == first["money_in"]
        assert again["expires_at"] == first["expires_at"]
        refused = await here.atlas(*BUY, "--amount", "100")
        assert refused.status == 65
        assert "149.00" in refused.stderr
        assert "1.00" in refused.stderr
        await seen.until_status(42, "active")
        await assert_bought_once(seen, 42)
        await assert_money_holds(seen)


async def test_money_is_recorded_while_the_supervisor_is_down_and_the_key_goes_live_after() -> None:
    async with stack(migrated=True) as here:
        async with here.running(), watch(dsn_of(here)) as seen:
            await here.ok("customer", "add", "42")
            await here.ok("stop", "activation")
            await here.ok(*BUY, "--amount", "14900")
            assert await seen.status_of(42) == "pending"
        async with here.running(), watch(dsn_of(here)) as seen:
            await seen.until_status(42, "active")
            await assert_bought_once(seen, 42)
