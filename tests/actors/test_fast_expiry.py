"""The end of access: marked in the database first, gone from the node after, and never for who has paid meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.fast_expiry import FastExpiry
from db.access import grant_trial
from db.customers import add_customer
from db.subscriptions import expire_page
from tests.actors.locks import IMPATIENT, locked
from tests.actors.node_house import NEVER, NodeHouse, node_house


@pytest.fixture
async def house(database_dsn: str, tmp_path: Path) -> AsyncIterator[NodeHouse]:
    async with node_house(database_dsn, tmp_path, database=IMPATIENT) as house:
        await house.activation()
        await house.node("oslo")
        yield house


async def until(house: NodeHouse, query: str, wanted: object) -> None:
    async def is_so() -> bool:
        return await house.value(query) == wanted

    await house.until(is_so)


async def test_access_that_has_ended_is_marked_and_its_key_leaves_the_node(house: NodeHouse) -> None:
    await house.buy(1)
    await house.until_status(1, "active")
    await house.move_clock(days=31)
    await house.fast_expiry()
    house.wake("fast_expiry")
    await house.until_status(1, "removed")
    assert (await house.view(1)).state == "expired"
    assert await house.listed("oslo") == {}


async def test_whoever_pays_between_the_mark_and_the_removal_keeps_the_key(house: NodeHouse) -> None:
    await house.buy(1)
    await house.until_status(1, "active")
    key = (await house.key(1)).key_id
    await house.move_clock(days=31)
    await house.run(expire_page)
    assert (await house.view(1)).state == "expired"
    await house.buy(1, "second")
    await house.fast_expiry()
    house.wake("fast_expiry")
    await house.until_status(1, "active")
    assert (await house.view(1)).is_running
    assert {*await house.listed("oslo")} == {key}
    assert await house.at_rest() == []


async def test_paid_time_overrides_the_end_of_a_trial(house: NodeHouse) -> None:
    await house.buy(2)  # so that somebody does end
    await house.until_status(2, "active")

    await house.run(add_customer, 1)
    await house.run(grant_trial, 1)
    await house.buy(1)
    await house.until_status(1, "active")
    await house.fast_expiry()
    await house.move_clock(days=30, hours=1)
    house.wake("fast_expiry")
    await house.until_status(2, "removed")
    assert (await house.view(1)).is_running, "the paid month was added to the trial's end"
    assert (await house.key(1)).status == "active"


async def test_marking_leaves_half_of_the_budget_to_removals_and_goes_on_where_it_stopped(house: NodeHouse) -> None:
    for number in range(1, 22):
        await house.buy(number)
    await until(house, "SELECT count(*) FROM vpn_keys WHERE activation_status = 'active'", 21)
    await house.value(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END$$"
    )
    await house.value(
        "CREATE TRIGGER dawdle BEFORE UPDATE ON subscriptions FOR EACH ROW WHEN (NEW.state = 'expired') "
        "EXECUTE FUNCTION dawdle()"
    )
    await house.revoke(21)
    await house.move_clock(days=31)
    worker = FastExpiry(interval=NEVER, start_jitter=(NEVER, NEVER), budget=0.4, page_size=1)
    house.refs["fast_expiry"] = await house.pool.system.start(worker, name="fast_expiry")
    house.wake("fast_expiry")
    await house.until_status(21, "removed")
    running = await house.value("SELECT count(*) FROM subscriptions WHERE state = 'active'")
    assert isinstance(running, int)
    assert running > 0, "the revoked key did not wait for all the marking"
    await until(house, "SELECT count(*) FROM subscriptions WHERE state = 'active'", 0)
    await until(house, "SELECT count(*) FROM vpn_keys WHERE activation_status = 'removed'", 21)
    assert await house.listed("oslo") == {}


async def test_a_page_that_cannot_be_marked_now_keeps_no_removal_waiting(house: NodeHouse) -> None:
    await house.buy(1)
    await house.buy(2)
    await until(house, "SELECT count(*) FROM vpn_keys WHERE activation_status = 'active'", 2)
    await house.revoke(2)
    await house.move_clock(days=31)
    _, other = await house.pool.holder("other")
    async with locked(
        other,
        "SELECT FROM vpn_keys k JOIN subscriptions s ON s.id = k.subscription_id "
        "WHERE s.state = 'active' FOR UPDATE OF k",
    ):
        await house.fast_expiry()
        house.wake("fast_expiry")
        await house.until_status(2, "removed")
        assert (await house.view(1)).state == "active", "marking takes its key along, and that is locked"
    house.wake("fast_expiry")
    await house.until_status(1, "removed")
    assert house.refs["fast_expiry"].incarnation == 1
