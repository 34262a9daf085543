"""Telegram beyond the payment itself: checkouts answered in time, long polling that loses nothing, contacts."""

from __future__ import annotations

import attrs
import pytest
import trio

from actors.payments.events import ProviderAway
from actors.payments.settings import PaymentSettings
from actors.payments.telegram_updates import TelegramUpdates
from runtime import Ignore, Ref
from runtime.testing import OnCrash
from simulators.telegram import Telegram
from tests.actors.payments.payment_fixtures import Harness, harness


def polling(settings: PaymentSettings) -> PaymentSettings:
    return attrs.evolve(settings, telegram=attrs.evolve(settings.telegram, mode="polling"))


async def start_updates(here: Harness) -> Ref:
    actor = TelegramUpdates(here.outside.settings, wait=2.0, first_pause=0.05, last_pause=0.2)
    return await here.system.start(actor, name="telegram_updates", on_crash=OnCrash.RESTART)


async def until_taken(telegram: Telegram) -> None:
    """Wait until every pending update was confirmed to Telegram."""
    with trio.fail_after(15):
        while telegram.updates:
            await telegram.changed.wait()


async def ordered(here: Harness, key: str = "click") -> str:
    return (await here.invoice("telegram", await here.order("telegram", key=key))).pay_url or ""


async def test_a_checkout_by_webhook_is_answered_yes_and_again_yes(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        telegram = here.outside.telegram
        query = telegram.check_out(1001, await ordered(here))
        for _ in range(2):
            assert (await here.deliver("telegram", telegram.event(query))).status_code == 200
            assert (await telegram.answer_to(query))["ok"] is True
        assert await here.counts() == (0, 0, 0)


@pytest.mark.parametrize(
    ("user", "amount", "language", "words"),
    [
        (2002, None, "ru", "другому человеку"),
        (2002, None, "en", "somebody else"),
        (1001, 1, "de", "not that of your order"),
    ],
)
async def test_a_checkout_that_is_not_the_order_is_answered_no_and_why(
    database_dsn: str, user: int, amount: int | None, language: str, words: str
) -> None:
    async with harness(database_dsn) as here:
        telegram = here.outside.telegram
        query = telegram.check_out(user, await ordered(here), amount=amount, language=language)
        assert (await here.deliver("telegram", telegram.event(query))).status_code == 200
        answer = await telegram.answer_to(query)
        assert answer["ok"] is False
        assert words in str(answer["error_message"])


async def test_a_checkout_of_an_order_that_has_ended_is_answered_no(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        telegram = here.outside.telegram
        link = await ordered(here)
        await here.move_clock(minutes=31)
        query = telegram.check_out(1001, link)
        await here.deliver("telegram", telegram.event(query))
        assert "Срок оплаты истёк" in str((await telegram.answer_to(query))["error_message"])


async def test_a_checkout_that_cannot_be_read_is_answered_no_and_is_a_case(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        telegram = here.outside.telegram
        update = telegram.check_out(1001, await ordered(here))
        query = update["pre_checkout_query"]
        assert isinstance(query, dict)
        query["from"] = {"is_bot": False, "language_code": "en"}
        answer = await here.deliver("telegram", telegram.event(update))
        assert (answer.status_code, answer.json()["state"]) == (200, "failed")
        assert "You were not charged" in str((await telegram.answer_to(update))["error_message"])
        assert await here.counts() == (0, 0, 1)


async def test_a_checkout_is_answered_in_time_although_telegram_stumbles(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        telegram = here.outside.telegram
        query = telegram.check_out(1001, await ordered(here))
        telegram.troubles.before.extend([502, 502])
        await here.deliver("telegram", telegram.event(query))
        assert (await telegram.answer_to(query))["ok"] is True


async def test_an_answer_that_telegram_does_not_take_is_noted_and_the_event_stays_settled(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        telegram = here.outside.telegram
        query = telegram.check_out(1001, await ordered(here))
        telegram.troubles.before.extend([500] * 3)
        assert (await here.deliver("telegram", telegram.event(query))).status_code == 200
        assert "answerPreCheckoutQuery" in (await here.until_event(ProviderAway)).why


async def test_long_polling_checks_out_and_books_and_drops_nothing_that_was_pending(database_dsn: str) -> None:
    async with harness(database_dsn, change=polling) as here:
        telegram = here.outside.telegram
        telegram.webhook_url = "https://an.earlier.webhook.example"
        link = await ordered(here)
        pending = telegram.check_out(1001, link)
        await start_updates(here)
        assert (await telegram.answer_to(pending))["ok"] is True
        telegram.pay(1001, link)
        await until_taken(telegram)
        assert await here.counts() == (1, 1, 0)
        assert (telegram.dropped, telegram.webhook_url) == (0, "")


@pytest.mark.parametrize("point", ["stored", "understood", "settled", "taken"])
async def test_a_poller_that_dies_at_any_step_gets_its_updates_again_and_books_them_once(
    database_dsn: str, point: str
) -> None:
    async with harness(database_dsn, change=polling) as here:
        telegram = here.outside.telegram
        telegram.pay(1001, await ordered(here))
        here.system.services.failpoints.arm("telegram_updates", point)
        updates = await start_updates(here)
        with trio.fail_after(15):
            await here.system.up(updates, 2)
        await until_taken(telegram)
        assert await here.counts() == (1, 1, 0)


async def test_without_the_pool_updates_stay_with_telegram_until_it_is_back(database_dsn: str) -> None:
    async with harness(database_dsn, change=polling) as here:
        telegram = here.outside.telegram
        telegram.pay(1001, await ordered(here))
        pool = here.system.address("pool.gateway").ref
        await here.system.stop(pool)
        updates = await start_updates(here)
        await here.until_event(ProviderAway)
        await here.system.stop(updates)
        assert len(telegram.updates) == 1
        assert await here.counts() == (0, 0, 0)


async def test_an_update_about_money_is_named_by_its_charge_and_any_other_by_its_number(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        telegram = here.outside.telegram
        link = await ordered(here)
        written = telegram.write(1001)
        checkout = telegram.check_out(1001, link)
        paid = telegram.pay(1001, link, charge="stx1")
        for update in (written, checkout, paid):
            await here.deliver("telegram", telegram.event(update))
        query = checkout["pre_checkout_query"]
        assert isinstance(query, dict)
        assert await here.value("SELECT array_agg(event_id ORDER BY id) FROM provider_events") == [
            f"123456789:{written['update_id']}",
            f"123456789:checkout:{query['id']}",
            "123456789:charge:stx1",
        ]


async def test_a_payment_whose_number_was_another_updates_before_is_booked(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        telegram = here.outside.telegram
        link = await ordered(here)
        first = telegram.write(1001)
        await here.deliver("telegram", telegram.event(first))
        paid = {**telegram.pay(1001, link), "update_id": first["update_id"]}
        assert (await here.deliver("telegram", telegram.event(paid))).json()["result"] == "entitlement"
        assert await here.counts() == (1, 1, 0)
        other = {**telegram.write(2002), "update_id": first["update_id"]}
        await here.deliver("telegram", telegram.event(other))
        assert await here.value("SELECT count(*) FROM customers WHERE telegram_id = 2002") == 1


async def test_who_writes_is_a_reachable_customer_and_who_blocks_the_bot_is_not_added(
    database_dsn: str,
) -> None:
    async with harness(database_dsn) as here:
        telegram = here.outside.telegram
        for update in (
            telegram.write(7, "/start ref_8", "en"),
            telegram.write(8),
            telegram.write(9, "/start ref8"),
            telegram.block(10),
        ):
            answer = await here.deliver("telegram", telegram.event(update))
            assert answer.json()["result"] == "nothing"
        found = await here.value(
            """
            SELECT string_agg(format('%s %s %s', c.telegram_id, c.language, r.telegram_id), ',' ORDER BY c.telegram_id)
            FROM customers c LEFT JOIN customers r ON r.id = c.referrer_id
            """
        )
        assert found == "7 en ,8 ru ,9 ru 8"


async def test_the_webhook_is_registered_with_its_secret_and_drops_nothing(database_dsn: str) -> None:
    def registered(settings: PaymentSettings) -> PaymentSettings:
        telegram = attrs.evolve(settings.telegram, webhook_url="https://shop.example/payments/telegram")
        return attrs.evolve(settings, telegram=telegram)

    async with harness(database_dsn, change=registered) as here:
        telegram = here.outside.telegram
        secret, telegram.webhook_secret = telegram.webhook_secret, ""
        telegram.write(7)
        telegram.troubles.before.append(500)
        await start_updates(here)
        with trio.fail_after(15):
            while not telegram.webhook_url:
                await telegram.changed.wait()
        assert (telegram.webhook_secret, telegram.dropped) == (secret, 0)


async def test_without_a_bot_nobody_polls(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        with pytest.raises(Ignore, match="webhook_url"):
            await start_updates(here)
        off = TelegramUpdates(PaymentSettings())
        with pytest.raises(Ignore, match="token"):
            await here.system.start(off, name="off")
