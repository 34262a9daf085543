"""The notifications worker with a real database, a real pool and a Telegram of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

from actors.notices.notifications import Notifications
from actors.notices.settings import TelegramNoticeSettings
from actors.pool.settings import PoolSettings
from db.customers import add_customer
from db.tx import Row, Tx
from db.work.outbox import add_message
from runtime import Ref
from runtime.config import Secret
from runtime.testing import OnCrash
from tests.actors.notices.telegram import TOKEN, Telegram, telegram_server
from tests.actors.pool_fixtures import PoolHarness, pool_harness

PAYLOADS: Mapping[str, Mapping[str, object]] = {
    "key_active": {},
    "refund_paid": {"amount": 14900, "currency": "RUB"},
    "case_opened": {"kind": "orphan", "subject": "money_in:1"},
}


async def _write(
    tx: Tx, telegram_id: int | None, kind: str, subject: str, payload: Mapping[str, object], language: str
) -> None:
    customer = None if telegram_id is None else (await add_customer(tx, telegram_id, language=language)).id
    await add_message(tx, kind, subject, customer_id=customer, payload=payload)


async def _rows(tx: Tx) -> list[Row]:
    return list(await tx.fetch("SELECT state, attempts, last_error, next_attempt_at FROM outbox ORDER BY id"))


async def _reachable(tx: Tx, telegram_id: int) -> bool:
    found: bool = await tx.fetchval("SELECT is_reachable FROM customers WHERE telegram_id = $1", telegram_id)
    return found


@attrs.define(eq=False)
class NoticeHarness:
    """The worker, named "notifications", beside its pool and its Telegram."""

    pool_harness: PoolHarness
    telegram: Telegram
    settings: TelegramNoticeSettings

    async def start(
        self, *, on_crash: OnCrash = OnCrash.FAIL, name: str = "notifications", page_size: int = 100
    ) -> Ref:
        """Start the worker: it looks at once, then only when it is woken or an hour later."""
        worker = Notifications(
            self.settings, interval=3600.0, budget=30.0, page_size=page_size, start_jitter=(0.0, 0.0)
        )
        return await self.pool_harness.system.start(worker, name=name, on_crash=on_crash)

    async def write(
        self,
        telegram_id: int | None = 1001,
        kind: str = "key_active",
        *,
        subject: str = "key:1",
        payload: Mapping[str, object] | None = None,
        language: str = "en",
    ) -> None:
        """Write a notice, as whatever it tells of would."""
        facts = PAYLOADS.get(kind, {}) if payload is None else payload
        await self.pool_harness.pool.run("write", _write, telegram_id, kind, subject, facts, language)

    async def rows(self) -> list[Row]:
        """The outbox."""
        return await self.pool_harness.pool.run("rows", _rows)

    async def states(self) -> list[str]:
        """The states of the outbox, in the order in which the messages were written."""
        return [row["state"] for row in await self.rows()]

    async def until_states(self, *states: str) -> None:
        """Wait until the outbox has come to this; every change of it is told by an event of the worker's."""
        with trio.fail_after(15):
            while True:
                seen = len(self.pool_harness.events)
                if await self.states() == list(states):
                    return
                if len(self.pool_harness.events) == seen:
                    await self.pool_harness._next_event()

    async def is_reachable(self, telegram_id: int = 1001) -> bool:
        """What the database says of the customer."""
        return await self.pool_harness.pool.run("reachable", _reachable, telegram_id)

    def logged(self) -> str:
        """Every event so far, as it is logged."""
        return "\n".join(event.line() for event in self.pool_harness.events)


@asynccontextmanager
async def notice_harness(dsn: str, **telegram: object) -> AsyncIterator[NoticeHarness]:
    """A pool that wakes the worker, and a Telegram; `telegram` are settings of the worker. It is not started yet."""
    async with (
        telegram_server() as server,
        pool_harness(dsn, PoolSettings(size=4), on_crash=OnCrash.RESTART, wakes=("notifications",)) as harness,
    ):
        usual: dict[str, object] = {
            "token": Secret(TOKEN),
            "url": server.url,
            "rate": 1000.0,
            "chat_rate": 1000.0,
            "longest_wait": 1.0,
            "within": 4.5,
        }
        settings = TelegramNoticeSettings(**{**usual, **telegram})  # type: ignore[arg-type]  # the test's own keywords
        yield NoticeHarness(harness, server, settings)
