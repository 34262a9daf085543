"""A rate is kept with who said it and since when; what is no rate is never kept."""

from __future__ import annotations

from decimal import Decimal

import pytest

from db.billing.pricing import RATED, find_rate, note_rates, set_rate
from db.errors import BusinessError
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
