"""A clerk with one session at the database, for everybody in a test: opening one for each look would be most of the work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import attrs
import trio

from db.driver.session import Session, open_session
from db.errors import DatabaseUnreachable, LeaseError
from db.tx import Tx

T = TypeVar("T")


class Away(Exception):
    """The database did not do it, or did not say so: ask again."""


@attrs.define(eq=False)
class _Errand:
    function: Callable[[Tx], Awaitable[Any]]
    done: trio.Event = attrs.field(factory=trio.Event)
    answer: Any = None
    error: Exception | None = None


@attrs.frozen
class Clerk:
    """Runs functions in transactions, one after the other."""

    _send: trio.MemorySendChannel[_Errand]

    async def run(self, function: Callable[[Tx], Awaitable[T]]) -> T:
        """Run it in a transaction of its own. Raises Away, and whatever the function raises."""
        errand = _Errand(function)
        await self._send.send(errand)
        await errand.done.wait()
        if errand.error is not None:
            raise errand.error
        answer: T = errand.answer
        return answer


@asynccontextmanager
async def clerk(dsn: str) -> AsyncIterator[Clerk]:
    """A clerk for as long as the block lasts, whatever becomes of the database meanwhile."""
    send, receive = trio.open_memory_channel[_Errand](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_work, dsn, receive)
        yield Clerk(send)
        nursery.cancel_scope.cancel()


async def _work(dsn: str, errands: trio.MemoryReceiveChannel[_Errand]) -> None:
    async for errand in errands:
        try:
            async with open_session(dsn, "atlas/test") as session:
                if await _do(session, errand):
                    async for another in errands:
                        if not await _do(session, another):
                            break
        except DatabaseUnreachable as error:
            errand.error = Away(str(error))
            errand.done.set()


async def _do(session: Session, errand: _Errand) -> bool:
    """Whether the session may be used again."""
    try:
        errand.answer = await session.run("errand", errand.function, within=5.0)
    except LeaseError as error:
        errand.error = Away(str(error))
        return False
    except Exception as error:  # noqa: BLE001  it belongs to whoever asked
        errand.error = error
    finally:
        errand.done.set()
    return True
