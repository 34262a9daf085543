"""Much to tell at once: everybody is told at Telegram's pace, and nobody waits for what another one reads."""

from __future__ import annotations

import trio

from tests.actors.notices.notice_fixtures import notice_harness


async def test_a_chat_with_much_to_read_delays_nobody_and_reads_it_in_order(database_dsn: str) -> None:
    async with notice_harness(database_dsn, chat_rate=20.0) as harness:
        for amount in range(100, 3100, 100):
            await harness.write(kind="refund_paid", subject=f"refund:{amount}", payload={"amount": amount * 100})
        await harness.write(1002)
        await harness.start(page_size=5)
        await harness.until_states(*["sent"] * 31)
        order = [message.chat for message in harness.telegram.delivered]
        assert order.index(1002) < 5
        said = [text.removeprefix("Your refund was made: ") for text in harness.telegram.texts(1001)]
        assert said == [f"{amount:,}\u00a0₽." for amount in range(100, 3100, 100)]
        assert {row["attempts"] for row in await harness.rows()} == {1}


async def test_a_group_reads_more_slowly_than_a_person(database_dsn: str) -> None:
    async with notice_harness(database_dsn, operator_chat_id=-77, chat_rate=1000.0, group_rate=5.0) as harness:
        for number in range(4):
            await harness.write(None, "case_opened", subject=f"case:{number}")
            await harness.write(1001, subject=f"key:{number}")
        began = trio.current_time()
        await harness.start()
        await harness.until_states(*["sent"] * 8)
        times = [message.at for message in harness.telegram.delivered if message.chat == -77]
        # Each against the beginning, not against the one before, which may itself have come late.
        assert all(at - began > 0.2 * number - 0.05 for number, at in enumerate(times)), times
        assert len(times) == 4


async def test_telegram_is_called_over_connections_that_stay(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:
        ref = await harness.start()
        for number in range(5):
            await harness.write(subject=f"key:{number}")
            await harness.telegram.until_delivered(number + 1)
        await harness.until_states(*["sent"] * 5)
        assert harness.telegram.connections == 1
        await harness.pool_harness.system.stop(ref)
        await harness.telegram.until(lambda: harness.telegram.open == 0)
