"""What everybody in the town looks at: one query after each event of the system, however many are waiting for what it shows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

from db.tx import Tx
from runtime import Event, System
from tests.e2e.clerk import Away, Clerk


@attrs.frozen
class Person:
    """A customer at one moment."""

    key: str | None
    """The activation status of the newest key."""
    renewed: bool
    reminded: bool


@attrs.frozen
class Snapshot:
    """The database at one moment."""

    people: Mapping[int, Person] = attrs.field(factory=dict)
    "Those who came last, by Telegram id."
    busy: int = -1
    "Messages that have not left, keys on their way, events that are not settled."

    def key(self, who: int) -> str | None:
        """The activation status of the customer's newest key."""
        person = self.people.get(who)
        return None if person is None else person.key


class News:
    """Tells when to look again: after every event of the system, those included that come during a look, and every second.

    Not every change has an event: what a worker could not write down at first it writes later, and tells nobody.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._changed = trio.Event()

    async def until(self, is_so: Callable[[], Awaitable[bool]]) -> None:
        """Return once `is_so` answers yes."""
        unsubscribe = self._system.services.events.subscribe(self._note)
        try:
            while True:
                changed = self._changed
                if await is_so():
                    return
                with trio.move_on_after(1.0):
                    await changed.wait()
        finally:
            unsubscribe()

    def _note(self, _: Event) -> None:
        self._changed.set()
        self._changed = trio.Event()


@attrs.define
class Board:
    """The newest snapshot."""

    newest: int = 0
    "The highest Telegram id so far; the board shows the forty before it."
    snapshot: Snapshot = attrs.field(factory=Snapshot)
    _renewed: trio.Event = attrs.field(factory=trio.Event)

    async def until(self, is_so: Callable[[Snapshot], bool]) -> None:
        """Return once a snapshot shows it."""
        while True:
            renewed = self._renewed
            if is_so(self.snapshot):
                return
            await renewed.wait()

    async def keep(self, clerk: Clerk, news: News) -> None:
        """Look after every event, for ever."""

        async def look() -> bool:
            try:
                self.snapshot = await clerk.run(self._read)
            except Away:
                return False
            renewed, self._renewed = self._renewed, trio.Event()
            renewed.set()
            return False

        await news.until(look)

    async def _read(self, tx: Tx) -> Snapshot:
        rows = await tx.fetch(
            """
            SELECT c.telegram_id, key.status, r.subscription_id IS NOT NULL AS renewed,
                   EXISTS (SELECT FROM outbox o WHERE o.customer_id = c.id AND o.kind LIKE 'reminder_%'
                           AND o.state = 'sent') AS reminded
            FROM customers c JOIN subscriptions s ON s.customer_id = c.id
            LEFT JOIN LATERAL (SELECT activation_status AS status FROM vpn_keys k WHERE k.subscription_id = s.id
                               ORDER BY k.id DESC LIMIT 1) AS key ON true
            LEFT JOIN LATERAL (SELECT subscription_id FROM renewals WHERE subscription_id = s.id LIMIT 1) AS r ON true
            WHERE c.telegram_id > $1
            """,
            self.newest - 40,
        )
        busy: int = await tx.fetchval(
            """
            SELECT (SELECT count(*) FROM outbox WHERE state = 'pending')
                 + (SELECT count(*) FROM vpn_keys WHERE activation_status NOT IN ('active', 'removed'))
                 + (SELECT count(*) FROM provider_events WHERE state = 'received')
            """
        )
        people = {row["telegram_id"]: Person(row["status"], row["renewed"], row["reminded"]) for row in rows}
        return Snapshot(people, busy)


@asynccontextmanager
async def board(system: System, clerk: Clerk) -> AsyncIterator[Board]:
    """A board that is kept for as long as the block lasts."""
    found = Board()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.keep, clerk, News(system))
        yield found
        nursery.cancel_scope.cancel()
