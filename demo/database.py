"""What the demo reads of the database and the node, and the two things that it may do there: move the clock, and say
that it has moved.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, Protocol, cast

import attrs
import trio

from db.driver.session import Session, open_session
from db.schema.demo_clock import set_clock_offset
from db.tx import Tx
from demo.errors import DemoFailed
from demo.installation import WOKEN_BY_TIME
from runtime.config import Secret
from vpn.node.client import AgentClient

_LOOK_AGAIN: Final = 0.03
_WAKE_AGAIN: Final = 1.0
_DRAIN_SECONDS: Final = 30.0

_OPEN_WORK: Final = """
SELECT (SELECT count(*) FROM vpn_keys WHERE activation_status IN ('pending', 'removing')) AS keys,
       (SELECT count(*) FROM subscriptions WHERE state = 'active' AND expires_at <= atlas_now()) AS ended,
       (SELECT count(*) FROM renewal_schedule WHERE due_at <= atlas_now()) AS renewals,
       (SELECT count(*) FROM reminder_schedule WHERE due_at <= atlas_now()) AS reminders,
       (SELECT count(*) FROM orders WHERE state = 'pending' AND expires_at <= atlas_now()) AS orders,
       (SELECT count(*) FROM invoices
        WHERE watched AND state = 'open' AND next_attempt_at <= atlas_now()) AS invoices,
       (SELECT count(*) FROM provider_events WHERE state = 'received') AS events,
       (SELECT count(*) FROM outbox WHERE state = 'pending') AS messages
"""


_STUCK_MESSAGES: Final = """
SELECT id, kind, customer_id, attempts, last_error, claimed_by, (next_attempt_at - atlas_now())::text AS due_in
FROM outbox WHERE state = 'pending' ORDER BY id LIMIT 5
"""


class _Record(Protocol):
    """A row as the driver gives it, which knows the names of its columns."""

    def items(self) -> Iterable[tuple[str, Any]]: ...


class NotQuiescent(DemoFailed):
    """Work was left over that no worker finished in time."""


@attrs.frozen
class Standing:
    """One customer's access and purses, as the database has them."""

    expires_at: float | None
    """Unix seconds; None: never had any."""
    paid: int
    credit: int
    earned: int
    debt: int
    """Kopecks, by purse."""


@attrs.define(eq=False)
class DemoDatabase:
    """The database of an installation and, because both share the demo's time, its node."""

    session: Session
    node: AgentClient
    offset: float = 0.0
    """Seconds from real time to the demo's time."""
    notices: Counter[str] = attrs.field(factory=Counter)
    """Sent so far, by kind. Housekeeping takes them away after a while."""
    undelivered: int = 0
    _last_notice: int = 0
    _one_at_a_time: trio.Lock = attrs.field(factory=trio.Lock)

    def now(self) -> float:
        """The demo's time, which is the database's and the node's."""
        return time.time() + self.offset

    async def jump(self, to: float) -> None:
        """Move the time of the database and of the node to this moment, in Unix seconds."""
        self.offset = to - time.time()
        await self.node.move_clock(self.offset)
        await self.session.run("demo.clock", set_clock_offset, timedelta(seconds=self.offset))

    async def drain(self) -> None:
        """Wake the workers until nothing is left to do at this moment. Raises NotQuiescent if that takes over 30
        seconds.
        """
        left: dict[str, Any] = {}
        woken = -math.inf
        with trio.move_on_after(_DRAIN_SECONDS):
            while True:
                # Again and again: what is due in a moment is not due yet.
                if trio.current_time() - woken > _WAKE_AGAIN:
                    woken = trio.current_time()
                    await self._wake()
                left = await self.open_work()
                if not left:
                    await self._count_notices()
                    return
                await trio.sleep(_LOOK_AGAIN)
        messages = await self.rows(_STUCK_MESSAGES)
        raise NotQuiescent(f"after {_DRAIN_SECONDS:g} s there is still work: {left}; messages: {messages}")

    async def open_work(self) -> dict[str, int]:
        """How much is due and not done, by kind of work; kinds without any are left out."""
        row = (await self.rows(_OPEN_WORK))[0]
        return {kind: count for kind, count in row.items() if count}

    async def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        """The rows of a query, each by column name."""

        async def run(tx: Tx) -> list[dict[str, Any]]:
            return [dict(cast("_Record", row).items()) for row in await tx.fetch(query, *arguments)]

        async with self._one_at_a_time:
            return await self.session.run("demo.look", run, within=15.0)

    async def value(self, query: str, *arguments: object) -> Any:
        """The first column of the first row of a query."""
        return next(iter((await self.rows(query, *arguments))[0].values()))

    async def standings(self) -> dict[int, Standing]:
        """Access and purses of every customer, by Telegram id."""
        rows = await self.rows(
            """
            SELECT c.telegram_id, extract(epoch FROM s.expires_at)::float8 AS ends, held.*
            FROM customers c LEFT JOIN subscriptions s ON s.customer_id = c.id
            CROSS JOIN LATERAL (
                SELECT coalesce(sum(balance) FILTER (WHERE kind = 'paid'), 0)::bigint AS paid,
                       coalesce(sum(balance) FILTER (WHERE kind = 'credit'), 0)::bigint AS credit,
                       coalesce(sum(balance) FILTER (WHERE kind = 'earned'), 0)::bigint AS earned,
                       coalesce(sum(balance) FILTER (WHERE kind = 'debt'), 0)::bigint AS debt
                FROM accounts WHERE customer_id = c.id AND currency = 'RUB') AS held
            """
        )
        return {row["telegram_id"]: Standing(*list(row.values())[1:]) for row in rows}

    async def served(self) -> set[int]:
        """The Telegram ids of the customers whom the node serves at this moment, by its own list of keys."""
        keys = [key.spec.key_id async for key in self.node.list_all() if key.state.value == "serving"]
        rows = await self.rows(
            """
            SELECT c.telegram_id FROM vpn_keys k JOIN subscriptions s ON s.id = k.subscription_id
            JOIN customers c ON c.id = s.customer_id WHERE k.key_id = ANY($1::text[])
            """,
            keys,
        )
        return {row["telegram_id"] for row in rows}

    async def alter_a_withdrawal(self) -> int | None:
        """Raise the amount of one that was paid out, past all triggers, as nobody may; its number (None: there is none)."""

        async def run(tx: Tx) -> int | None:
            await tx.execute("SET LOCAL session_replication_role = replica")
            number: int | None = await tx.fetchval(
                "UPDATE withdrawals SET amount = amount + 100 "
                "WHERE id = (SELECT max(id) FROM withdrawals WHERE state = 'paid') RETURNING id"
            )
            return number

        return await self.session.run("demo.alter", run, within=15.0)

    async def _count_notices(self) -> None:
        for row in await self.rows("SELECT id, kind, state FROM outbox WHERE id > $1 ORDER BY id", self._last_notice):
            self._last_notice = row["id"]
            if row["state"] == "sent":
                self.notices[row["kind"]] += 1
            else:
                self.undelivered += 1

    async def _wake(self) -> None:
        await self.rows("SELECT pg_notify('atlas_wake', name) FROM unnest($1::text[]) AS name", list(WOKEN_BY_TIME))


@asynccontextmanager
async def open_database(dsn: str, node_url: str, node_token: str) -> AsyncIterator[DemoDatabase]:
    """Connect to the database and to the node's agent, for the length of the block."""
    async with (
        open_session(Secret(dsn), "atlas demo") as session,
        AgentClient("demo", node_url, Secret(node_token)) as node,
    ):
        yield DemoDatabase(session, node)
