"""Notices: at least once, at most once more than that, in order, at Telegram's pace, and nothing lost on the way."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import attrs
import pytest
import trio
import trio.testing

from actors.notices.events import (
    NoticeRetried,
    NoticeSent,
    NoticeUndeliverable,
    NoticeUntellable,
    OperatorChatMoved,
    TelegramAway,
    TelegramBack,
    TelegramTooFast,
)
from db.customers import touch_contact_unless_busy
from runtime import StartRefused, WakeUp
from runtime.testing import OnCrash
from tests.actors.notices.notice_fixtures import NoticeHarness, notice_harness
from tests.actors.notices.telegram import (
    BAD_GATEWAY,
    BAD_MARKUP,
    BLOCKED,
    DEACTIVATED,
    NEVER_MET,
    NO_CHAT,
    TOKEN,
    TOO_LONG,
    Reply,
    Taken,
    too_fast,
)
from tests.actors.pool_fixtures import until_full
from tests.postgres_cluster import Cluster

READY = "Your key is ready. Open “My subscription” to connect."

# ---- what is sent, and when ---------------------------------------------------------------------------------------------


async def test_what_waits_is_sent_when_the_worker_starts(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:
        await harness.write()
        await harness.start()
        await harness.until_states("sent")
        assert harness.telegram.texts(1001) == [READY]


async def test_a_new_message_is_sent_at_once_not_at_the_next_look(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:
        await harness.start()
        await harness.write()
        await harness.telegram.until_delivered(1)
        await harness.write(subject="key:2")
        await harness.telegram.until_delivered(2)


async def test_everybody_reads_their_own_language(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:
        await harness.write(1001, "refund_paid", language="ru")
        await harness.write(1002, "refund_paid", language="en")
        await harness.start()
        await harness.until_states("sent", "sent")
        assert harness.telegram.texts(1001) == ["Возврат оформлен: 149\u00a0₽."]
        assert harness.telegram.texts(1002) == ["Your refund was made: 149\u00a0₽."]


async def test_one_chat_reads_its_messages_in_their_order(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:
        for amount in range(100, 1100, 100):
            await harness.write(kind="refund_paid", subject=f"refund:{amount}", payload={"amount": amount * 100})
        await harness.start()
        await harness.telegram.until_delivered(10)
        said = [text.removeprefix("Your refund was made: ") for text in harness.telegram.texts(1001)]
        assert said == [f"{amount:,}\u00a0₽." for amount in range(100, 1100, 100)]


async def test_more_than_a_page_is_sent_without_waiting_for_the_next_look(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:
        for number in range(25):
            await harness.write(1000 + number)
        await harness.start(page_size=10)
        await harness.until_states(*["sent"] * 25)
        assert len({message.chat for message in harness.telegram.delivered}) == 25


async def test_no_connection_is_held_while_a_message_is_on_its_way(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:
        idle: list[bool] = []

        async def look(_: int) -> None:
            idle.append(await until_full(harness.pool_harness.state))

        harness.telegram.before = look
        await harness.write()
        await harness.start()
        await harness.until_states("sent")
        assert idle == [True]


# ---- Telegram's pace ----------------------------------------------------------------------------------------------------


async def test_one_chat_gets_no_more_than_its_rate(database_dsn: str) -> None:
    async with notice_harness(database_dsn, chat_rate=10.0) as harness:
        for number in range(5):
            await harness.write(subject=f"key:{number}")
        await harness.start()
        await harness.telegram.until_delivered(5)
        times = [message.at for message in harness.telegram.delivered]
        # What was sent a tenth of a second apart arrives about so; all five together never sooner than four turns.
        assert times[-1] - times[0] >= 0.35


async def test_the_bot_sends_no_more_than_its_rate_to_all_chats_together(database_dsn: str) -> None:
    async with notice_harness(database_dsn, rate=50.0) as harness:
        for number in range(26):
            await harness.write(1000 + number)
        await harness.start()
        await harness.telegram.until_delivered(26)
        times = [message.at for message in harness.telegram.delivered]
        assert times[-1] - times[0] >= 0.45


async def test_a_chat_that_is_too_fast_waits_as_long_as_telegram_says_and_no_other_does(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:
        harness.telegram.arrange(1001, too_fast(1))
        await harness.write(1001)
        await harness.write(1001, subject="key:2")
        await harness.write(1002)
        began = trio.current_time()
        await harness.start()
        await harness.until_states("sent", "sent", "sent")
        assert harness.telegram.delivered[0].chat == 1002
        assert harness.telegram.delivered[1].at - began >= 1.0
        assert harness.telegram.requests == 4
        assert [row["attempts"] for row in await harness.rows()] == [1, 1, 1]  # to be refused for haste costs none


async def test_two_chats_refused_at_once_close_everything_for_as_long_as_telegram_says(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:
        for chat in (1001, 1002):
            harness.telegram.arrange(chat, too_fast(2))
            await harness.write(chat)
        await harness.start()
        with trio.fail_after(10):
            while not any(
                isinstance(event, TelegramTooFast) and event.everything for event in harness.pool_harness.events
            ):
                await harness.pool_harness._next_event()
        closed = trio.current_time()
        await harness.write(1003)
        await harness.until_states("sent", "sent", "sent")
        assert all(message.at - closed >= 1.8 for message in harness.telegram.delivered)


# ---- who cannot be reached ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [BLOCKED, DEACTIVATED, NO_CHAT, NEVER_MET], ids=lambda reply: str(reply[1]))
async def test_a_refused_chat_ends_that_message_alone_and_is_noted(database_dsn: str, reply: tuple[int, str]) -> None:
    async with notice_harness(database_dsn) as harness:
        harness.telegram.arrange(1001, reply)
        await harness.write()
        await harness.write(subject="key:2")
        await harness.start()
        await harness.until_states("undeliverable", "sent")
        assert not await harness.is_reachable()
        assert (await harness.rows())[0]["last_error"].endswith(reply[1])


async def test_a_contact_makes_a_customer_reachable_again(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:
        harness.telegram.arrange(1001, BLOCKED)
        await harness.write()
        await harness.start()
        await harness.until_states("undeliverable")
        await harness.pool_harness.pool.run("contact", touch_contact_unless_busy, 1001)
        assert await harness.is_reachable()


@pytest.mark.parametrize("reply", [TOO_LONG, BAD_MARKUP], ids=lambda reply: str(reply[1]))
async def test_a_message_telegram_never_takes_is_given_up_and_the_customer_is_unchanged(
    database_dsn: str, reply: tuple[int, str]
) -> None:
    async with notice_harness(database_dsn) as harness:
        harness.telegram.arrange(1001, reply)
        await harness.write()
        await harness.start()
        await harness.until_states("undeliverable")
        assert await harness.is_reachable()
        assert (await harness.pool_harness.until_event(NoticeUndeliverable)).why.endswith(reply[1])


# ---- trouble on the way -------------------------------------------------------------------------------------------------


async def test_an_error_of_telegram_is_retried_and_keeps_the_order(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:
        harness.telegram.arrange(1001, BAD_GATEWAY, BAD_GATEWAY)
        await harness.write(kind="refund_paid", payload={"amount": 100})
        await harness.write(subject="key:2")
        await harness.start()
        await harness.until_states("sent", "sent")
        assert [row["attempts"] for row in await harness.rows()] == [3, 1]
        assert harness.telegram.texts(1001) == ["Your refund was made: 1\u00a0₽.", READY]


async def test_what_becomes_due_while_others_are_sent_is_not_forgotten(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:

        async def be_slow(_: int) -> None:
            await trio.sleep_until(began + 2.0)  # by then every other retry is due, and nobody has looked

        began = trio.current_time()
        for number in range(8):
            harness.telegram.arrange(1000 + number, BAD_GATEWAY)
            await harness.write(1000 + number)
        harness.telegram.before = be_slow
        await harness.start()
        await harness.until_states(*["sent"] * 8)


@pytest.mark.parametrize("cut", [True, False], ids=["cut", "silence"])
async def test_a_lost_answer_repeats_the_message_once_for_each_loss(database_dsn: str, cut: bool) -> None:
    async with notice_harness(database_dsn, within=0.5) as harness:
        harness.telegram.arrange(1001, Taken(cut))
        await harness.write()
        await harness.start()
        await harness.until_states("sent")
        assert harness.telegram.texts(1001) == [READY, READY]
        assert (await harness.rows())[0]["attempts"] == 2


async def test_while_telegram_cannot_be_reached_messages_wait_and_no_attempt_is_counted(database_dsn: str) -> None:
    async with notice_harness(database_dsn, url="http://127.0.0.1:9") as harness:
        await harness.write()
        ref = await harness.start()
        await harness.pool_harness.until_event(TelegramAway)
        assert [(row["state"], row["attempts"]) for row in await harness.rows()] == [("pending", 0)]
        assert ref.address.readiness[0] is False
        assert "notices wait" in ref.address.readiness[1]


async def test_a_token_that_telegram_does_not_know_is_told_and_a_restart_tries_at_once(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:
        harness.telegram.token = "another"
        await harness.write()
        ref = await harness.start(on_crash=OnCrash.RESTART)
        why = (await harness.pool_harness.until_event(TelegramAway)).why
        assert "401" in why and "telegram.token_file" in why
        assert [row["attempts"] for row in await harness.rows()] == [0]
        harness.telegram.token = TOKEN
        await harness.pool_harness.system.kill(ref)
        await harness.until_states("sent")


async def test_readiness_comes_back_with_telegram(database_dsn: str) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    async with notice_harness(database_dsn, url=f"http://127.0.0.1:{port}") as harness:
        await harness.write()
        ref = await harness.start()
        await harness.pool_harness.until_event(TelegramAway)
        async with trio.open_nursery() as nursery:
            opened = await trio.open_tcp_listeners(port, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, harness.telegram.serve, opened)
            await harness.until_states("sent")
            await harness.pool_harness.until_event(TelegramBack)
            assert ref.address.readiness[0] is True
            nursery.cancel_scope.cancel()


async def test_nothing_is_sent_twice_because_the_database_was_away_when_it_had_been_sent(
    cluster: Cluster, database_dsn: str
) -> None:
    name = urlsplit(database_dsn).path.removeprefix("/")

    async def allow_connections(allowed: str) -> None:
        await trio.to_thread.run_sync(cluster.sql, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {allowed}')

    async def take_the_database_away(_: int) -> None:
        await allow_connections("false")
        terminate = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'"
        await trio.to_thread.run_sync(cluster.sql, terminate)

    async with notice_harness(database_dsn) as harness:
        await harness.write()
        harness.telegram.before = take_the_database_away
        ref = await harness.start()
        try:
            # told, though it could not be written down
            assert (await harness.pool_harness.until_event(NoticeSent)).notice == "key_active"
            assert _inside(harness, ref.name)["unsettled"] == 1
        finally:
            await allow_connections("true")
        await harness.pool_harness.until_full()
        ref.tell(WakeUp())
        await harness.write(1002)  # so that there is something to wait for behind a repetition
        harness.telegram.before = None
        await harness.until_states("sent", "sent")
        assert harness.telegram.texts(1001) == [READY]


# ---- crashes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "delivered"), [("claimed", 1), ("sending", 1), ("sent", 2), ("settled", 1)], ids=lambda value: str(value)
)
async def test_a_crash_repeats_only_what_was_sent_and_not_written_down_and_only_once(
    database_dsn: str, point: str, delivered: int
) -> None:
    async with notice_harness(database_dsn) as harness:
        harness.pool_harness.system.services.failpoints.arm("notifications", point)
        await harness.write()
        ref = await harness.start(on_crash=OnCrash.RESTART)
        await harness.pool_harness.system.exited(ref)
        await harness.pool_harness.system.up(ref, 2)
        await harness.write(1002)  # so that there is something to wait for behind whatever is repeated
        await harness.until_states("sent", "sent")
        assert harness.telegram.texts(1001) == [READY] * delivered
        assert harness.telegram.texts(1002) == [READY]


async def test_a_stop_lets_what_is_on_its_way_arrive_and_begins_nothing_more(database_dsn: str) -> None:
    async with notice_harness(database_dsn, rate=2.0) as harness, trio.open_nursery() as nursery:
        on_its_way, go_on = trio.Event(), trio.Event()

        async def wait(_: int) -> None:
            on_its_way.set()
            await go_on.wait()

        harness.telegram.before = wait
        for number in range(3):
            await harness.write(1001 + number)
        ref = await harness.start()
        await on_its_way.wait()
        nursery.start_soon(harness.pool_harness.system.stop, ref)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        await harness.pool_harness.system.exited(ref)
        assert sorted(await harness.states()) == ["pending", "pending", "sent"]
        assert len(harness.telegram.delivered) == 1


async def test_two_workers_share_the_messages_and_send_none_twice(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:
        for number in range(40):
            await harness.write(1000 + number)
        await harness.start(name="notifications", page_size=5)
        await harness.start(name="others", page_size=5)
        await harness.until_states(*["sent"] * 40)
        assert len(harness.telegram.delivered) == 40
        assert len({message.chat for message in harness.telegram.delivered}) == 40


# ---- what is not sent ---------------------------------------------------------------------------------------------------


async def test_without_a_token_messages_wait_and_the_worker_says_so(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:
        silent = attrs.evolve(harness, settings=attrs.evolve(harness.settings, token=type(harness.settings.token)("")))
        await harness.write()
        ref = await silent.start()
        with trio.fail_after(10):
            while _inside(silent, ref.name)["iterations"] == 0:
                await trio.lowlevel.checkpoint()
        assert "set telegram.token_file" in ref.address.facts["notices"]
        assert [(row["state"], row["attempts"]) for row in await harness.rows()] == [("pending", 0)]
        assert harness.telegram.requests == 0
        await harness.start(name="with a token")
        await harness.until_states("sent")


async def test_a_reminder_of_what_is_over_is_not_sent(database_dsn: str) -> None:
    past, future = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))
    async with notice_harness(database_dsn) as harness:
        await harness.write(kind="reminder_paid_3h", payload={"expires_at": past.isoformat()})
        await harness.write(kind="reminder_paid_3h", payload={"expires_at": future.isoformat()}, subject="another")
        await harness.start()
        await harness.until_states("undeliverable", "sent")
        assert len(harness.telegram.delivered) == 1
        assert await harness.is_reachable()


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("greeting", {}),
        ("refund_paid", {}),
        ("renewal_lacks_funds", {"amount": 1, "expires_at": "9999-12-31T23:59:59+00:00"}),
    ],
    ids=["unknown", "incomplete", "absurd"],
)
async def test_a_notice_without_a_text_waits_is_reported_and_delays_nobody(
    database_dsn: str, kind: str, payload: dict[str, object]
) -> None:
    async with notice_harness(database_dsn) as harness:
        await harness.write(kind=kind, payload=payload)
        await harness.write(subject="key:2")
        await harness.start()
        await harness.until_states("pending", "sent")
        assert kind in (await harness.pool_harness.until_event(NoticeUntellable)).why


# ---- the operator -------------------------------------------------------------------------------------------------------


async def test_the_operator_reads_what_has_no_customer(database_dsn: str) -> None:
    async with notice_harness(database_dsn, operator_chat_id=77, operator_language="en") as harness:
        await harness.write(None, "case_opened")
        await harness.start()
        await harness.until_states("sent")
        assert harness.telegram.texts(77) == ["A human is needed: orphan, money_in:1. More: atlas cases"]


async def test_without_an_operators_chat_its_notices_wait_and_nobody_elses(database_dsn: str) -> None:
    async with notice_harness(database_dsn) as harness:
        await harness.write(None, "case_opened")
        await harness.write()
        await harness.start()
        await harness.until_states("pending", "sent")
        assert (await harness.rows())[0]["last_error"] == "telegram.operator_chat_id is not set"


async def test_an_operators_group_that_moved_is_followed(database_dsn: str) -> None:
    async with notice_harness(database_dsn, operator_chat_id=-77) as harness:
        harness.telegram.arrange(
            -77,
            Reply(400, "Bad Request: group chat was upgraded to a supergroup chat", {"migrate_to_chat_id": -100123}),
        )
        await harness.write(None, "case_opened")
        await harness.start()
        await harness.until_states("sent")
        assert len(harness.telegram.texts(-100123)) == 1
        assert "set telegram.operator_chat_id" in (await harness.pool_harness.until_event(OperatorChatMoved)).line()


async def test_the_operators_notices_are_never_given_up(database_dsn: str) -> None:
    async with notice_harness(database_dsn, operator_chat_id=77) as harness:
        harness.telegram.arrange(77, NO_CHAT)
        await harness.write(None, "case_opened")
        await harness.start()
        await harness.pool_harness.until_event(NoticeRetried)
        await harness.until_states("sent")


# ---- what is never shown ------------------------------------------------------------------------------------------------


async def test_neither_the_token_nor_a_text_nor_a_chat_is_logged(
    database_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with notice_harness(database_dsn, operator_chat_id=0) as harness:
        harness.telegram.arrange(1001, BAD_GATEWAY, BLOCKED)
        harness.telegram.arrange(424242, Taken(cut=True))
        await harness.write(1001)
        await harness.write(424242)
        await harness.start()
        await harness.until_states("undeliverable", "sent")
        told = harness.logged()
        assert "notice" in told
        for secret in (TOKEN, TOKEN.partition(":")[2], READY, "424242"):
            assert secret not in told
        assert TOKEN not in repr(harness.settings)


async def test_a_budget_that_would_cut_messages_off_is_refused_at_the_start(database_dsn: str) -> None:
    async with notice_harness(database_dsn, within=28.0) as harness:
        with pytest.raises(StartRefused, match=r"more than telegram\.within"):
            await harness.start()


async def test_a_stop_that_would_cut_messages_off_is_refused_at_the_start(database_dsn: str) -> None:
    async with notice_harness(database_dsn, within=5.0) as harness:
        with pytest.raises(StartRefused, match=r"telegram\.within = 5 must be less than the actor's shutdown = 5"):
            await harness.start()


def _inside(harness: NoticeHarness, name: str) -> Mapping[str, object]:
    """What the worker shows of itself."""
    found = harness.pool_harness.system.address(name).inspect()["actor"]
    assert isinstance(found, dict)
    return found
