"""Playwright's asyncio interface, called from tests that await nothing: its loop has a thread of its own.

Its synchronous interface switches stacks inside the test's own thread, on which neither pytest's import hook nor CPython 3.11's
count of recursions can rely.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any


class OffLoop:
    """A loop in a thread. `call` runs a coroutine on it and waits; what belongs to Playwright comes back as a `Remote`."""

    def __init__(self) -> None:
        # By name: trio_asyncio, once imported, gives loops of its own.
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="playwright", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run it to its end and return what it returns."""
        return self.wrapped(asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60))

    def wrapped(self, found: Any) -> Any:
        """What is found, such that a call of it waits."""
        if type(found).__module__.startswith("playwright.") or (callable(found) and not isinstance(found, type)):
            return Remote(self, found)
        return found

    def close(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


class Remote:
    """An object of Playwright's; each call of a method that it would have to be awaited for is waited for."""

    def __init__(self, off: OffLoop, target: Any) -> None:
        self._off = off
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return self._off.wrapped(getattr(self._target, name))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call it on the loop."""
        return self._off.call(_called(self._target, arguments, named))


async def _called(target: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    plain = [one._target if isinstance(one, Remote) else one for one in arguments]
    found = target(*plain, **named)
    return await found if inspect.isawaitable(found) else found
