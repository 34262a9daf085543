"""Much to tell at once: everybody is told at Telegram's pace, and nobody waits for what another one reads."""

from __future__ import annotations

import itertools

from tests.actors.notice_house import notice_house


async def test_a_chat_with_much_to_read_delays_nobody_and_reads_it_in_order(database_dsn: str) -> None:
    async with notice_house(database_dsn, chat_rate=20.0) as house:
        for amount in range(100, 3100, 100):
            await house.write(kind="refund_paid", subject=f"refund:{amount}", payload={"amount": amount * 100})
        await house.write(1002)
        await house.start(page_size=5)
        await house.until_states(*["sent"] * 31)
        order = [message.chat for message in house.telegram.delivered]
        assert order.index(1002) < 5
        said = [text.removeprefix("Your refund was made: ") for text in house.telegram.texts(1001)]
        assert said == [f"{amount:,}\u00a0₽." for amount in range(100, 3100, 100)]
        assert {row["attempts"] for row in await house.rows()} == {1}


async def test_a_group_reads_more_slowly_than_a_person(database_dsn: str) -> None:
    async with notice_house(database_dsn, operator_chat_id=-77, chat_rate=1000.0, group_rate=5.0) as house:
        for number in range(4):
            await house.write(None, "case_opened", subject=f"case:{number}")
            await house.write(1001, subject=f"key:{number}")
        await house.start()
        await house.until_states(*["sent"] * 8)
        times = [message.at for message in house.telegram.delivered if message.chat == -77]
        assert min(later - earlier for earlier, later in itertools.pairwise(times)) > 0.15


async def test_telegram_is_called_over_connections_that_stay(database_dsn: str) -> None:
    async with notice_house(database_dsn) as house:
        ref = await house.start()
        for number in range(5):
            await house.write(subject=f"key:{number}")
            await house.telegram.until_delivered(number + 1)
        await house.until_states(*["sent"] * 5)
        assert house.telegram.connections == 1
        await house.pool_house.system.stop(ref)
        await house.telegram.until(lambda: house.telegram.open == 0)
