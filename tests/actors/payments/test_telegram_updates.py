"""Long polling with much to do, with little help, and with company: nobody waits for somebody else's update."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from actors.payments import telegram as adapter
from actors.payments.events import DeliveryUnread
from actors.payments.telegram_updates import POLLING_EPOCH
from db.tx import Tx
from db.work.leader_leases import Epoch, acquire_epoch, release_epoch
from runtime import Ref
from tests.actors.payments.payment_fixtures import PATIENCE, Harness, harness
from tests.actors.payments.test_telegram import ordered, polling, start_updates, until_taken

MANY = 20


@asynccontextmanager
async def locked(here: Harness, table: str) -> AsyncIterator[None]:
    """Nobody else gets at the table for the length of the block."""
    async with here.pool.lease("locked", within=PATIENCE, hold=PATIENCE) as lease:
        await lease.execute("BEGIN")
        await lease.execute(f"LOCK TABLE {table}")
        try:
            yield
        finally:
            await lease.execute("ROLLBACK")


async def test_every_pending_checkout_is_answered_in_time_although_each_answer_takes_long(database_dsn: str) -> None:
    async with harness(database_dsn, change=polling) as here:
        telegram = here.outside.telegram
        telegram.slow["answerPreCheckoutQuery"] = 1.0
        for number in range(MANY):
            telegram.write(3000 + number)
        link = await ordered(here)
        queries = [telegram.check_out(1001, link) for _ in range(MANY)]
        await start_updates(here)
        for query in queries:
            assert (await telegram.answer_to(query))["ok"] is True
        await until_taken(telegram)


async def test_a_payment_that_cannot_go_on_holds_up_no_checkout(database_dsn: str) -> None:
    async with harness(database_dsn, change=polling) as here:
        telegram = here.outside.telegram
        link, other = await ordered(here), await ordered(here, "second")
        updates = await start_updates(here)
        async with locked(here, "money_in"):
            telegram.pay(1001, link)
            query = telegram.check_out(1001, other)
            assert (await telegram.answer_to(query))["ok"] is True
            later = telegram.check_out(1001, other)
            assert (await telegram.answer_to(later))["ok"] is True
            assert telegram.updates, "the payment is not confirmed while it is neither booked nor postponed"
        await until_taken(telegram)
        assert updates.incarnation == 1
        await here.move_clock(minutes=1)
        await here.watcher()
        with trio.fail_after(PATIENCE):
            while await here.counts() != (1, 1, 0):
                await here.next_event()


@pytest.mark.parametrize("table", ["provider_events", "orders"])
async def test_a_checkout_that_the_database_does_not_judge_in_time_is_refused_in_time(
    database_dsn: str, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setattr(adapter, "JUDGE_WITHIN", 0.3)
    async with harness(database_dsn) as here:
        telegram = here.outside.telegram
        query = telegram.check_out(1001, await ordered(here))
        async with locked(here, table):
            assert (await here.deliver("telegram", telegram.event(query))).status_code == 503
            answer = await telegram.answer_to(query)
        assert "Деньги не списаны" in str(answer["error_message"])


async def test_what_one_sender_wrote_is_read_in_its_order(database_dsn: str) -> None:
    async with harness(database_dsn, change=polling) as here:
        telegram = here.outside.telegram
        await here.order("telegram", telegram_id=8)
        for number in range(MANY):
            telegram.write(3000 + number, "/start ref8")
            telegram.write(3000 + number, "hello")
        await start_updates(here)
        await until_taken(telegram)
        assert await here.value("SELECT count(*) FROM customers WHERE referrer_id IS NOT NULL") == MANY


async def test_half_a_character_in_an_update_stops_nobody(database_dsn: str) -> None:
    async with harness(database_dsn, change=polling) as here:
        telegram = here.outside.telegram
        link = await ordered(here)
        telegram.write(7, "\ud800")
        telegram.pay(1001, link, charge="stx\ud800")
        telegram.pay(1001, link)
        updates = await start_updates(here)
        await until_taken(telegram)
        assert (await here.counts())[:2] == (1, 1)
        assert updates.incarnation == 1


async def test_an_update_that_cannot_be_stored_is_a_case_and_the_others_go_on(database_dsn: str) -> None:
    async def refuse(tx: Tx) -> None:
        await tx.execute(
            """
            CREATE FUNCTION refuse_one() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'this one is refused'; END $$;
            CREATE TRIGGER refuse_one BEFORE INSERT ON provider_events FOR EACH ROW
                WHEN (convert_from(NEW.body, 'UTF8') LIKE '%storm%') EXECUTE FUNCTION refuse_one();
            """
        )

    async with harness(database_dsn, change=polling) as here:
        telegram = here.outside.telegram
        await here.run(refuse)
        number = telegram.write(7, "a storm")["update_id"]
        telegram.pay(1001, await ordered(here))
        updates = await start_updates(here)
        await until_taken(telegram)
        assert await here.counts() == (1, 1, 1)
        assert await here.value("SELECT subject FROM cases") == f"telegram:{number}"
        assert str(number) in (await here.until_event(DeliveryUnread)).why
        assert updates.incarnation == 1


async def test_updates_whose_numbers_start_anew_are_taken(database_dsn: str) -> None:
    async with harness(database_dsn, change=polling) as here:
        telegram = here.outside.telegram
        link = await ordered(here)
        telegram.write(7)
        await start_updates(here)
        await until_taken(telegram)
        telegram.count_anew()
        telegram.pay(1001, link)
        await until_taken(telegram)
        assert await here.counts() == (1, 1, 0)


async def test_of_two_processes_one_polls_and_the_other_goes_on_when_it_ends(database_dsn: str) -> None:
    async def seize(tx: Tx) -> Epoch:
        await tx.execute("UPDATE epochs SET held_until = atlas_now() WHERE name = $1", POLLING_EPOCH)
        return await acquire_epoch(tx, POLLING_EPOCH, "another/telegram_updates", 3600.0)

    async with harness(database_dsn, change=polling) as here:
        telegram = here.outside.telegram
        other = await here.run(seize)
        telegram.pay(1001, await ordered(here))
        updates = await start_updates(here)
        await until_fact(updates, "waits for another/telegram_updates")
        assert (await here.counts(), len(telegram.updates)) == ((0, 0, 0), 1)
        assert await here.run(release_epoch, other)
        await until_taken(telegram)
        assert await here.counts() == (1, 1, 0)
        other = await here.run(seize)
        await until_fact(updates, "waits for another/telegram_updates")
        telegram.write(7)
        assert await here.run(release_epoch, other)
        await until_taken(telegram)
        await here.system.stop(updates)
        assert (await here.run(acquire_epoch, POLLING_EPOCH, "another/telegram_updates", 1.0)).is_mine, (
            "a stop leaves it free"
        )


async def until_fact(updates: Ref, turn: str) -> None:
    """Wait until the poller says so of its turn."""
    with trio.fail_after(PATIENCE):
        while updates.address.facts.get("turn") != turn:
            await trio.lowlevel.checkpoint()
