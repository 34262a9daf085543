"""A connection of its own that listens for NOTIFY. It is a hint for actors that wait for work; polling stays the truth."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

import attrs
import trio

from db.driver.connection import Connection
from db.errors import DatabaseUnreachable, DatabaseUnusable

PING_EVERY = 15.0
"""Seconds between two proofs that the listening connection still lives."""
PING_LIMIT = 5.0
"""Seconds that such a proof may take."""
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0


@attrs.define(eq=False)
class Listener:
    """Listens on a channel for ever: reconnects with a jittered delay, and says whenever it has just begun to listen.

    `notified(payload)` is called for each NOTIFY, `listening()` after each (re)connect, because whatever was notified before
    went unheard; `interrupted(cause)` when a connection that listened was lost. All are synchronous. An outage is silence, never
    an error.
    """

    channel: str
    connect: Callable[[], Awaitable[Connection]]
    notified: Callable[[str], None]
    listening: Callable[[], None]
    interrupted: Callable[[str], None]
    jitter: random.Random = attrs.field(factory=random.Random)

    async def run(self) -> NoReturn:
        """Listen until cancelled; connects again after each loss, after a jittered delay of at most 5 seconds."""
        failures = 0
        while True:
            try:
                connection = await self.connect()
            except (DatabaseUnreachable, DatabaseUnusable):
                failures += 1
            else:
                failures = 0
                await self._listen(connection)
            bound = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(failures, 16))
            await trio.sleep(self.jitter.uniform(0, bound))

    async def _listen(self, connection: Connection) -> None:
        """Listen until the connection ends, and make sure that it ends."""
        driver = connection.driver
        closed = trio.Event()
        cause = "the server closed the connection"
        try:
            with trio.fail_after(PING_LIMIT):
                await driver.listen(self.channel, self.notified, closed.set)
            self.listening()
            while not closed.is_set():
                with trio.move_on_after(PING_EVERY):
                    await closed.wait()
                if not closed.is_set():
                    with trio.fail_after(PING_LIMIT):
                        await driver.run_on_loop(driver.raw.execute("SELECT 1"))
        except Exception as error:  # noqa: BLE001  whatever it was: this connection is over, and another one is opened
            cause = f"{type(error).__name__}: {error}"
        finally:
            driver.terminate()
        self.interrupted(cause)
