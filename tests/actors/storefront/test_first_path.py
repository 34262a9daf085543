"""From /start to an access that works: bought from the balance and by Stars, in both languages, against Telegram's limits."""

from __future__ import annotations

import aiogram.methods
import aiogram.types

from actors.announcements import KeyActive
from tests.actors.payments.test_official_sdks import _is_method, unread
from tests.actors.storefront.storefront_fixtures import Shop, shop


async def charges(here: Shop) -> tuple[object, object]:
    """Paid orders, and grants."""
    return (
        await here.harness.value("SELECT count(*) FROM orders WHERE state = 'paid'"),
        await here.harness.value("SELECT count(*) FROM entitlement_events"),
    )


async def test_a_plan_is_bought_from_the_balance_and_twice_pressed_it_is_one(database_dsn: str) -> None:
    async with shop(database_dsn) as here:
        await here.fill(1001, 1000)
        person = here.person()
        assert "ATLAS" in (await person.writes("/start")).text
        plans = await person.presses("Купить доступ")
        assert any("30" in label and "149" in label for label in plans.labels())
        offer = await person.presses("Базовый · 30")
        assert "149" in offer.text
        assert "Доступ до" in offer.text
        data = here.telegram.data_of(offer, "С баланса")
        paid = await person.presses("С баланса")
        assert "Оплачено" in paid.text
        again = await person.sends(data)
        assert "Оплачено" in again.text
        assert await charges(here) == (1, 1)
        assert len(here.telegram.chats[1001]) == 1, "one message is edited"
        assert "851" in (await person.writes("/profile")).text


async def test_stars_are_paid_and_the_screen_changes_by_itself(database_dsn: str) -> None:
    async with shop(database_dsn) as here:
        person = here.person()
        await person.writes("/start", "en")
        await person.presses("Buy access")
        await person.presses("Basic · 30")
        page = await person.presses("Telegram Stars")
        assert "left" in page.text
        link = here.telegram.data_of(page, "Pay")
        await here.harness.deliver("telegram", here.telegram.event(here.telegram.pay(1001, link)))
        await here.until(person, lambda shown: "Paid" in shown.text)
        assert await charges(here) == (1, 1)

        key = await here.harness.value("SELECT key_id FROM vpn_keys")
        assert isinstance(key, str)
        here.harness.gateway.address.services.topics.publish(KeyActive(key, 1, 1))  # a hint that nothing is behind yet
        assert "Check" in str(person.sees.labels())


async def test_aiogram_knows_every_call_and_every_update_of_the_simulator(database_dsn: str) -> None:
    async with shop(database_dsn) as here:
        await here.fill(1001, 1000)
        person = here.person()
        await person.writes("/start")
        for label in (
            "Купить доступ",
            "Базовый · 30",
            "С баланса",
            "Меню",
            "Профиль",
            "История",
            "Меню",
            "Друзья",
            "Меню",
        ):
            await person.presses(label)
        await person.sends_photo()
        known = {method.__api_method__: method for method in vars(aiogram.methods).values() if _is_method(method)}
        for method, body in here.telegram.calls:
            assert list(unread(known[method].model_validate(body))) == [], method
        for update in here.telegram.updates:
            assert list(unread(aiogram.types.Update.model_validate(update))) == []


async def test_old_forged_and_foreign_buttons_change_nothing_and_say_so(database_dsn: str) -> None:
    async with shop(database_dsn) as here:
        await here.fill(1001, 1000)
        person, thief = here.person(), here.person(1002)
        await person.writes("/start")
        await thief.writes("/start")
        assert "Тарифы" in (await person.sends("menu_buy_vpn")).text
        assert "устарела" in (await person.sends("no_such:button")).text
        assert "устарела" in (await person.sends("1zz.1")).text
        assert "Цена изменилась" in (await person.sends("1bp.basic.u.1~AAAAAAAA")).text
        assert "не хватает" in (await thief.sends("1bp.basic.u.bhw~AAAAAAAA")).text
        await person.sends("1bp.basic.u.bhw~AAAAAAAA")
        number = await here.harness.value("SELECT id FROM orders WHERE state = 'paid'")
        assert isinstance(number, int)
        assert "устарела" in (await thief.sends(f"1or.{number}")).text
        assert await charges(here) == (1, 1)
