"""What every request to the desk passes: its name for this host, where it comes from, and the headers of its answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.http.hosts import is_loopback

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types desk",
    )
)
_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # `no-referrer` would make the forms of our own pages say `Origin: null`.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_SAFE: Final = ("GET", "HEAD")


class Guard:
    """An ASGI layer that answers 421 to a name that is not this host's, and 403 to a change that another page asks for.

    This host is loopback, `hosts`, and the host of `public_url`. Only the name stops a page whose own name was resolved anew to
    this address (DNS rebinding): such a page passes every test of its origin, and has its cookies.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], public_url: str) -> None:
        self._app = app
        public = urlsplit(public_url)
        self._hosts = frozenset(name.lower() for name in (*hosts, public.hostname or "") if name)
        self._public = f"{public.scheme}://{public.netloc}".lower() if public_url else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = Headers(scope=scope)
        refused = self._refusal(scope["method"], headers)
        if refused is not None:
            await refused(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    answer[name] = value
                answer.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, guarded)

    def _refusal(self, method: str, headers: Headers) -> PlainTextResponse | None:
        names = headers.getlist("host")
        if len(names) != 1 or not self._is_ours(names[0]):
            return PlainTextResponse(
                "this desk answers to localhost, to admin.hosts and to the host of admin.public_url; add the name by which "
                "you reach it there\n",
                421,
            )
        if method in _SAFE or self._is_our_page(names[0], headers):
            return None
        return PlainTextResponse("a change is asked for by the desk's own pages alone; load the page again\n", 403)

    def _is_ours(self, host: str) -> bool:
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return name.lower() in self._hosts or is_loopback(name)

    def _is_our_page(self, host: str, headers: Headers) -> bool:
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site == "same-origin"
        # Over plain HTTP off loopback a browser does not say the site.
        origin = headers.get("origin", "").lower()
        return bool(origin) and origin in (f"http://{host.lower()}", self._public or "-")
