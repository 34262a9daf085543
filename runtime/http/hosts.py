"""The names that a listener on loopback answers to.

A page of a stranger's can make a browser on this machine ask it: the page's own name is resolved anew, to 127.0.0.1, so that the
answer counts as the page's (DNS rebinding). Such a request still says the stranger's name in `Host`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class LocalHosts:
    """An ASGI layer that answers 421 to a request whose `Host` is neither this machine nor one of `others`.

    This machine is `localhost`, or any loopback address; the port does not matter. `setting` is named in the answer.
    """

    def __init__(self, app: ASGIApp, others: Iterable[str] = (), *, setting: str) -> None:
        self._app = app
        self._others = frozenset(name.lower() for name in others)
        self._setting = setting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if all(self._is_known(host) for host in hosts):
            await self._app(scope, receive, send)
            return
        why = f"this listener is on loopback and answers to localhost; a proxy's name goes into {self._setting}\n"
        await PlainTextResponse(why, 421)(scope, receive, send)

    def _is_known(self, host: str) -> bool:
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return name.lower() in self._others or is_loopback(name)


def is_loopback(host: str) -> bool:
    """Whether this host is this machine only. A name like 127.example.com is somebody else's."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
