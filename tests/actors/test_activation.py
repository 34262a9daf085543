"""Keys that were paid for go live: at once, an outage costs no attempt, and somebody hears of those that do not."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from actors.activation import Activation
from actors.key_events import KeyFailed, KeyPostponed, KeySettled, KeysOverdue
from db.keys import Applied, Owner, claim_activations, confirm_activation
from db.subscriptions import mark_revoked
from tests.actors.node_house import NEVER, NodeHouse, node_house
from tests.vpn.agents import key


@pytest.fixture
async def house(database_dsn: str, tmp_path: Path) -> AsyncIterator[NodeHouse]:
    async with node_house(database_dsn, tmp_path) as house:
        yield house


def overdue(house: NodeHouse) -> list[KeysOverdue]:
    return [event for event in house.pool.events if isinstance(event, KeysOverdue)]


async def until_overdue(house: NodeHouse, count: int = 1) -> KeysOverdue:
    async def is_said() -> bool:
        return len(overdue(house)) >= count

    await house.until(is_said)
    return overdue(house)[-1]


async def test_a_purchase_wakes_the_worker_and_the_key_is_live_long_before_the_next_tick(house: NodeHouse) -> None:
    await house.activation()
    await house.node("oslo")
    await house.buy(1)
    await house.until_status(1, "active")
    assert (await house.key(1)).key_id in await house.listed("oslo")
    assert await house.at_rest() == []


async def test_how_long_a_key_took_is_told_by_the_databases_clock_alone(house: NodeHouse) -> None:
    await house.move_clock(days=10)
    await house.activation()
    await house.node("oslo")
    await house.buy(1)
    await house.until_status(1, "active")

    async def is_told() -> bool:
        return any(isinstance(event, KeySettled) for event in house.pool.events)

    await house.until(is_told)
    [settled] = [event for event in house.pool.events if isinstance(event, KeySettled)]
    assert 0 < settled.took < 60


async def test_what_was_revoked_while_the_node_was_being_told_is_taken_off_again(house: NodeHouse) -> None:
    await house.node("oslo")
    await house.buy(1)
    [claim] = await house.run(claim_activations, Owner("test/activation", 1), 10, 60.0)
    await house.run(mark_revoked, 1, actor="test")
    await house.put_stranger("oslo", attrs.evolve(key(claim.key_id), uuid=claim.uuid, generation=claim.generation))
    outcome = await house.run(confirm_activation, claim, [Applied("oslo")])
    assert outcome.result.value == "unwanted"
    await house.fast_expiry()
    house.wake("fast_expiry")
    await house.until_status(1, "removed")
    assert await house.listed("oslo") == {}


async def test_an_outage_counts_no_attempt_and_alerts_from_half_an_hour_on(house: NodeHouse) -> None:
    await house.activation()
    await house.node("oslo")
    await house.agents["oslo"].kill()
    await house.buy(1)

    async def is_postponed() -> bool:
        return any(isinstance(event, KeyPostponed) for event in house.pool.events)

    await house.until(is_postponed)
    assert overdue(house) == [], "a moment is no alert"
    await house.move_clock(minutes=29)
    before = sum(isinstance(event, KeyPostponed) for event in house.pool.events)

    async def is_tried_again() -> bool:
        house.wake("activation")
        return sum(isinstance(event, KeyPostponed) for event in house.pool.events) > before

    await house.until(is_tried_again)
    assert overdue(house) == []
    await house.move_clock(minutes=61)
    house.wake("activation")
    alert = await until_overdue(house)
    assert (alert.level, alert.count, alert.attempts) == (logging.ERROR, 1, 0)
    assert alert.waited > 1800
    assert alert.key_id in alert.line()
    assert await house.value("SELECT max(attempts) FROM vpn_keys") == 0
    await house.agent("oslo")
    await house.until_status(1, "active")


async def test_real_failures_alert_from_the_second_on_and_the_fifth_ends_in_a_case_and_the_money_back(
    house: NodeHouse,
) -> None:
    actor = Activation(interval=NEVER, alert_cooldown=0.0)
    house.refs["activation"] = await house.pool.system.start(actor, name="activation")
    await house.node("oslo")
    await house.value("UPDATE vpn_nodes SET inbounds = '{nowhere}' RETURNING 1")
    await house.buy(1)
    for attempt in range(1, 6):
        failed = await until_failed(house, attempt)
        assert (failed.attempts, failed.outcome) == (attempt, "gave_up" if attempt == 5 else "retry")
        if attempt > 1:  # one failure is no alert
            assert (await until_overdue(house, attempt - 1)).attempts == attempt
        await house.move_clock(hours=attempt)  # past any delay between two attempts
        house.wake("activation")
    assert [event.attempts for event in overdue(house)] == [2, 3, 4, 5]
    assert (await house.view(1)).state == "revoked"
    assert await house.value("SELECT string_agg(kind, ',') FROM cases") == "activation_failed"
    assert await house.value("SELECT max(balance) > 0 FROM accounts WHERE kind = 'customer'") is True


async def until_failed(house: NodeHouse, count: int) -> KeyFailed:
    def failures() -> list[KeyFailed]:
        return [event for event in house.pool.events if isinstance(event, KeyFailed)]

    async def is_so() -> bool:
        return len(failures()) >= count

    await house.until(is_so)
    return failures()[count - 1]


async def test_alerts_about_keys_keep_a_cooldown_between_them(house: NodeHouse) -> None:
    await house.activation()
    await house.node("oslo")
    await house.agents["oslo"].kill()
    await house.buy(1)
    for hours in (1, 2, 3):
        await house.move_clock(hours=hours)
        house.wake("activation")
        before = sum(isinstance(event, KeyPostponed) for event in house.pool.events)

        async def is_tried_again(before: int = before) -> bool:
            return sum(isinstance(event, KeyPostponed) for event in house.pool.events) > before

        await house.until(is_tried_again)
    assert len(overdue(house)) == 1
