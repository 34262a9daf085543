"""The gateway: where payment providers, shop front ends and customers' VPN programs reach us over HTTP."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

import attrs
import trio
from attrs.validators import ge, gt, le
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from actors.gateway_limits import LimitedApp, Limits
from actors.gateway_listener import HttpServer, listen, url_of
from actors.payments.intake import Intake
from actors.payments.registry import Providers, close_providers, open_providers
from actors.payments.routes import payment_routes
from actors.payments.settings import PaymentSettings
from actors.pool_client import Pool, pool_of
from actors.shop.description import PREFIX, load
from actors.shop.link_routes import link_routes
from actors.shop.problems import on_http_exception, refusal
from actors.shop.routes import Shop, shop_routes
from actors.shop.settings import ShopSettings
from actors.shop.signature import read_keys
from runtime.actor import Actor
from runtime.actor_task import ActorTask
from runtime.child import StopReason
from runtime.config.secret import Secret
from runtime.config.settings import settings
from runtime.errors import Killed, StartRefused
from runtime.logs import get_logger

_log = get_logger("gateway")


@settings("gateway")
@attrs.frozen
class GatewaySettings:
    """Where the gateway listens, and what a stranger may cost it. Put a proxy that speaks TLS in front of it."""

    host: str = "127.0.0.1"
    port: int = attrs.field(default=8610, validator=[ge(0), le(65535)])
    "The TCP port; 0 takes a free one, shown by `atlas status`."
    trusted_proxies: tuple[str, ...] = ()
    "Networks of our own proxies: what they say in X-Forwarded-For is believed."
    max_body: int = attrs.field(default=256 * 1024, validator=[ge(1024), le(16 * 1024 * 1024)])
    "Bytes of a request's body; a larger one gets 413."
    max_header: int = attrs.field(default=16 * 1024, validator=[ge(1024), le(256 * 1024)])
    "Bytes of a request's head; a larger one gets 431."
    head_seconds: float = attrs.field(default=5.0, validator=gt(0))
    "A connection without a whole request head is closed after so long."
    request_seconds: float = attrs.field(default=20.0, validator=gt(0))
    "A request that takes longer gets 408 or 503. An answer that its client does not read ends the connection."
    max_connections: int = attrs.field(default=512, validator=ge(1))
    "Connections at a time; one more is closed at once."
    max_connections_per_source: int = attrs.field(default=128, validator=ge(1))
    "Connections at a time of one source that is none of `trusted_proxies`; one more is closed at once."
    max_requests: int = attrs.field(default=64, validator=ge(1))
    "Requests in progress; the next one gets 503."
    rate: float = attrs.field(default=50.0, validator=gt(0))
    "Requests a second of one source; beyond that it gets 429."
    burst: int = attrs.field(default=200, validator=ge(1))
    "Requests that one source may send at once."

    def limits(self) -> Limits:
        """The limits of requests."""
        return Limits(self.max_header, self.max_body, self.request_seconds, self.max_requests, self.rate, self.burst)


@attrs.define(eq=False)
class Gateway(Actor):
    """Serves `/payments/<provider>` for each provider that is on, `/shop/v1` for front ends, `/s/<token>` for customers'
    programs, and `/healthz`.

    Role: takes providers' events; the first one to know of money. Owns: one listening socket, its providers' HTTP
    clients. Receives: nothing. Sends: requests for leases to its own pool, so that a storm of deliveries starves nobody.
    On crash: the socket is closed and opened again; a delivery that got no answer is repeated by its provider, and one that
    was stored is settled by the payment watcher.
    Invariants: no 2xx before the event is stored and settled, or given up with a case; what is not authentic leaves no
    trace in the database; malformed HTTP ends its own connection; no lease is held while a provider is asked.
    """

    gateway: GatewaySettings
    payments: PaymentSettings
    shop: ShopSettings = attrs.field(factory=ShopSettings)
    pool: str = "pool.gateway"
    _providers: Providers = attrs.field(init=False, factory=dict)
    _server: ActorTask | None = attrs.field(init=False, default=None)
    _stop: trio.Event = attrs.field(init=False, factory=trio.Event)
    _killed: Killed | None = attrs.field(init=False, default=None)
    _told: trio.Event = attrs.field(init=False, factory=trio.Event)

    async def on_start(self) -> None:
        trusted = _networks(self.gateway.trusted_proxies)
        keys = _keys(self.shop)
        self._providers = open_providers(self.payments)
        listener = listen("gateway", self.gateway.host, self.gateway.port)
        url = url_of(listener)
        self.context.describe(listening=url, providers=", ".join(sorted(self._providers)) or "none")
        if keys:
            self.context.describe(shop=f"{url}{PREFIX}, for {', '.join(sorted(keys))}")
        app = LimitedApp(
            Starlette(routes=self.routes(keys), exception_handlers={HTTPException: on_http_exception}),
            self.gateway.limits(),
            trusted,
            refusal=refusal,
            crashed=self._note_crash,
            killed=self._die,
        )
        self.context.start_task(self._die_when_told, name="die when told", inherit_deadline=False)
        self._server = self.context.start_task(
            self._serve, app, listener, trusted, name="serve http", inherit_deadline=False
        )

    async def on_stop(self, reason: StopReason) -> None:
        self._stop.set()
        if self._server is not None:
            await self._server.wait()

    def routes(self, keys: Mapping[str, Secret]) -> Sequence[BaseRoute]:
        """Everything that is served."""

        def pool() -> Pool:
            return pool_of(self.context, self.pool)

        return [
            Route("/healthz", self._healthz),
            *payment_routes(Intake.of(self.context, self.pool), self._providers),
            *link_routes(self.shop, pool),
            *(shop_routes(load(), Shop(keys, pool, self._providers)) if keys else ()),
        ]

    async def _healthz(self, _: Request) -> Response:
        """Whether events can be stored now, from memory: 200 or 503, and the providers that are on."""
        is_ready, why = self.context.lookup(self.pool).address.readiness
        answer = {"ready": is_ready, "why": why, "providers": sorted(self._providers)}
        return JSONResponse(answer, 200 if is_ready else 503)

    async def _serve(
        self, app: LimitedApp, listener: socket.socket, trusted: Sequence[IPv4Network | IPv6Network]
    ) -> None:
        try:
            server = HttpServer(
                app,
                self._note_crash,
                patience=self.gateway.head_seconds,
                header_bytes=self.gateway.max_header,
                connections=self.gateway.max_connections,
                of_one_source=self.gateway.max_connections_per_source,
                trusted=trusted,
            )
            await server.run(listener, self._stop)
        finally:
            with trio.CancelScope(shield=True):
                await close_providers(self._providers)

    def _note_crash(self, error: str) -> None:
        _log.error("a request or its connection failed", actor=self.context.name, what=error)

    async def _die(self, killed: Killed) -> None:
        """Die of a failpoint as of a crash: whoever waits for an answer gets none."""
        self._killed = killed
        self._told.set()
        await trio.sleep_forever()

    async def _die_when_told(self) -> None:
        await self._told.wait()
        assert self._killed is not None
        raise self._killed


def _keys(shop: ShopSettings) -> Mapping[str, Secret]:
    try:
        return read_keys(shop.keys.reveal())
    except ValueError as error:
        raise StartRefused(f"shop.keys: {error}", exit_code=os.EX_CONFIG) from error


def _networks(texts: Sequence[str]) -> list[IPv4Network | IPv6Network]:
    try:
        return [ip_network(text) for text in texts]
    except ValueError as error:
        raise StartRefused(f"gateway.trusted_proxies: {error}", exit_code=os.EX_CONFIG) from error
