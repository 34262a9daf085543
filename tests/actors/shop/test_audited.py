"""What a front end does is audited as the front end's, for the customer; where money goes lies sealed."""

from __future__ import annotations

from pathlib import Path

from actors.shop.settings import ShopSettings
from db.settings import WithdrawalSettings
from runtime.config import Secret
from runtime.http import new_client
from tests.actors.payments.payment_fixtures import harness
from tests.actors.shop.front import KEYS, Front, front
from tests.actors.shop.test_operations import ME, SEEN, earn, fund

CARD = "card 4111111111111234"
WISH = {"amount": 50000, "destination": CARD, "idempotency_key": "w"}


async def test_every_entry_names_the_front_end_and_the_customer(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        await fund(here, 200_000)
        await earn(here, 500_000)
        await here.ok("POST", f"{ME}/trial")
        await here.ok("POST", f"{ME}/purchases", {**SEEN, "idempotency_key": "p"})
        await here.ok("PUT", f"{ME}/auto-renew", {"enabled": True})
        await here.ok("POST", f"{ME}/reissue", {"idempotency_key": "r"})
        await here.ok("GET", f"{ME}/link")
        await here.ok("DELETE", f"{ME}/link")
        await here.ok("POST", f"{ME}/withdrawals", WISH)
        told = await here.harness.value(
            """
            SELECT string_agg(DISTINCT action, ' ' ORDER BY action) FROM audit
            WHERE actor = 'front_end:front' AND how = 'front_end' AND role IS NULL
              AND customer_id = (SELECT id FROM customers WHERE telegram_id = 1001)
            """
        )
        assert str(told).split() == [
            "finalize_balance_purchase",
            "grant_trial",
            "reissue_requested",
            "request_withdrawal",
            "reset_link",
            "set_auto_renew",
        ]
        others = "SELECT count(*) FROM audit WHERE actor IN ('customer', 'operator') OR actor LIKE 'shop%'"
        assert await here.harness.value(others) == 0
        assert await here.harness.value("SELECT actor FROM reissues") == "front_end:front"


async def test_a_destination_is_in_no_row_and_a_repetition_is_the_same_withdrawal(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        await here.ok("PUT", ME, {})
        await earn(here, 2_000_000)
        first = await here.ok("POST", f"{ME}/withdrawals", WISH)
        assert await here.ok("POST", f"{ME}/withdrawals", WISH) == first
        other = await here.call("POST", f"{ME}/withdrawals", {**WISH, "destination": "card 9999"})
        assert other.status_code == 422
        assert "9999" not in other.text
        for table in ("withdrawals", "audit", "outbox", "journals", "cases"):
            text = await here.harness.value(f"SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t")
            assert "4111" not in str(text)


async def test_without_its_key_file_a_withdrawal_waits_and_all_else_goes_on(database_dsn: str, tmp_path: Path) -> None:
    bad = tmp_path / "payout.key"
    bad.write_text("no key")
    bad.chmod(0o600)
    shop = ShopSettings(keys=Secret(KEYS))
    async with harness(database_dsn, shop=shop, withdrawals=WithdrawalSettings(bad)) as running, new_client() as client:
        here = Front(running, client)
        await here.ok("PUT", ME, {})
        await earn(here, 2_000_000)
        refused = await here.call("POST", f"{ME}/withdrawals", WISH)
        assert refused.status_code == 503
        assert str(bad) not in refused.text
        assert (await here.ok("GET", ME))["balance"] == 200_000
        bad.write_text("07" * 32)
        await here.ok("POST", f"{ME}/withdrawals", WISH)
        assert (await here.ok("GET", ME))["balance"] == 150_000
