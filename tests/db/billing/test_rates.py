"""A rate is kept with who said it and since when; what is no rate is never kept."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from db.auditor.audit import audit
from db.billing.orders import Quote, UsedRate, open_order
from db.billing.pricing import RATED, find_rate, note_rates, set_rate
from db.errors import BusinessError
from db.money import Money
from tests.db.database import Database


async def test_a_rate_that_is_set_by_hand_names_who_did_it_and_ages(database: Database) -> None:
    assert (await database.run(set_rate, "XTR", Decimal("1.30"), actor="operator")).source == "operator"
    await database.move_clock(seconds=60)
    found = await database.run(find_rate, "XTR")
    assert found is not None and 60 <= found.age < 120
    assert await database.fetchval("SELECT details->>'rate' FROM audit WHERE action = 'set_rate'") == "1.30"


@pytest.mark.parametrize("rate", ["0", "-1", "NaN", "Infinity", "1e12", "1e-13"])
async def test_a_rate_that_is_none_is_refused_and_from_a_source_left_out(database: Database, rate: str) -> None:
    with pytest.raises(BusinessError, match="nothing was changed"):
        await database.run(set_rate, "USDT", Decimal(rate), actor="operator")
    assert await database.run(note_rates, {"USDT": Decimal(rate)}, "cryptobot") == 0
    for asset in ("RUB", "UNVALUED", "KZT"):
        with pytest.raises(BusinessError, match=", ".join(RATED)):
            await database.run(set_rate, asset, Decimal(1), actor="operator")
    assert await database.fetchval("SELECT count(*) FROM rates") == 0


async def _named(database: Database, alteration: str = "SELECT 1") -> set[str]:
    """What the auditor names of a rate after an alteration with triggers off, which is taken back."""
    async with database.connect() as connection:
        await connection.execute("BEGIN; SET LOCAL session_replication_role = replica")
        await connection.execute(alteration)
        named = {
            finding.subject.partition(", ")[2] or finding.subject for finding in (await audit(connection)).findings
        }
        await connection.execute("ROLLBACK")
        return named


async def test_an_order_keeps_the_rate_that_it_is_quoted_at_once_and_the_auditor_checks_it(database: Database) -> None:
    await database.add_customer()
    rate = await database.run(set_rate, "USDT", Decimal("92.5"), actor="operator")
    used = UsedRate(rate.source, rate.taken_at, timedelta(minutes=15), Decimal(90), Decimal(95))
    quote = Quote(Money(1_610_811, "USDT"), rate.value, used)
    for _ in range(2):
        await database.run(open_order, 1001, "basic", 30, idempotency_key="in USDT", quote=quote)
    roubles = await database.run(open_order, 1001, "basic", 30, idempotency_key="in roubles")
    row = await database.fetchval(
        "SELECT string_agg(k::text, ';') FROM (SELECT asset, currency, rate, source, lowest FROM rates_kept) k"
    )
    assert row == "(USDT,RUB,92.500000000000,operator,90)"
    assert await _named(database) == set()
    for alteration, named in {
        "UPDATE rates_kept SET rate = 93": "rate",
        "UPDATE rates_kept SET lowest = 93": "lowest",
        "UPDATE rates_kept SET highest = 92": "highest",
        "UPDATE rates_kept SET source = 'cryptobot'": "source",
        "UPDATE rates_kept SET source = 'cryptobot', observed_at = observed_at - interval '1 hour'": "observed_at",
        "UPDATE rates_kept SET observed_at = observed_at - interval '1 second'": "observed_at",
        "UPDATE orders SET quoted_rate = 1, quoted_amount = 149000000 WHERE quoted_asset = 'USDT'": "rate",
        "INSERT INTO rates_kept (order_id, asset, currency, rate, source) "
        "SELECT id, 'RUB', 'RUB', 1, 'caller' FROM orders WHERE quoted_asset = 'RUB'": f"rate of order {roubles.id}",
    }.items():
        assert named in await _named(database, alteration), alteration
    another = await database.run(open_order, 1001, "basic", 30, idempotency_key="another", quote=quote)
    gone = f"DELETE FROM rates_kept WHERE order_id = {another.id}"
    assert f"order {another.id}" in await _named(database, gone)
