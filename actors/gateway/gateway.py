"""The gateway: where payment providers, shop front ends and customers' VPN programs reach us over HTTP."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence

import attrs
import trio
from attrs.validators import ge, le
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from actors.gateway.subscription_links import link_routes
from actors.gateway.webhooks import payment_routes
from actors.payments.intake import Intake
from actors.payments.registry import Providers, close_providers, open_providers
from actors.payments.settings import PaymentSettings
from actors.pool.client import Pool, pool_of
from actors.sealing import seal_opener
from actors.shop.description import PREFIX, load_description
from actors.shop.problems import on_http_exception, refusal_response
from actors.shop.routes import Shop, shop_routes
from actors.shop.settings import ShopSettings
from actors.shop.signature import read_keys
from db.embedded import EmbeddedSettings
from db.settings import LimitSettings, TrialSettings, WithdrawalSettings
from runtime import Actor, ActorTask, Killed, StopReason, get_logger
from runtime.config import Secret, settings
from runtime.http import HttpServer, LimitedApp, RequestLimits, listen, route, url_of

_log = get_logger("gateway")


@settings("gateway")
@attrs.frozen
class GatewaySettings(RequestLimits):
    """Where the gateway listens, and what a stranger may cost it. Put a proxy that speaks TLS in front of it."""

    host: str = "127.0.0.1"
    port: int = attrs.field(default=8610, validator=[ge(0), le(65535)])
    """The TCP port; 0 takes a free one, shown by `atlas status`."""


@attrs.define(eq=False)
class Gateway(Actor):
    """Serves `/payments/<provider>` for each provider that is on, `/shop/v1` for front ends, `/s/<token>` for customers'
    programs, and `/healthz`.

    Role: takes providers' events; the first one to know of money. Owns: one listening socket, its providers' HTTP
    clients. Receives: nothing. Sends: requests for leases to its own pool, so that a storm of deliveries
    takes no connection from the workers.
    On crash: the socket is closed and opened again; a delivery that got no answer is repeated by its provider, and one that
    was stored is settled by the payment watcher.
    Invariants: no 2xx before the event is stored and settled, or given up with a case; what is not authentic leaves no
    trace in the database; malformed HTTP ends its own connection; no lease is held while a provider is asked.
    """

    gateway: GatewaySettings
    payments: PaymentSettings
    shop: ShopSettings = attrs.field(factory=ShopSettings)
    withdrawals: WithdrawalSettings = attrs.field(factory=WithdrawalSettings)
    embedded: EmbeddedSettings = attrs.field(factory=EmbeddedSettings)
    limits: LimitSettings = attrs.field(factory=LimitSettings)
    trials: TrialSettings = attrs.field(factory=TrialSettings)
    pool: str = "pool.gateway"
    _providers: Providers = attrs.field(init=False, factory=dict)
    _server: ActorTask | None = attrs.field(init=False, default=None)
    _stop: trio.Event = attrs.field(init=False, factory=trio.Event)
    _error: Killed | None = attrs.field(init=False, default=None)
    _failed: trio.Event = attrs.field(init=False, factory=trio.Event)

    async def on_start(self) -> None:
        keys = read_keys(self.shop.keys.reveal())
        self._providers = open_providers(self.payments)
        app = self._app(keys)
        listener = listen("gateway", self.gateway.host, self.gateway.port)
        url = url_of(listener)
        self.context.describe(listening=url, providers=", ".join(sorted(self._providers)) or "none")
        if keys:
            self.context.describe(shop=f"{url}{PREFIX}, for {', '.join(sorted(keys))}")
        self.context.start_task(self._raise_when_failed, name="die when told", inherit_deadline=False)
        self._server = self.context.start_task(self._serve, app, listener, name="serve http", inherit_deadline=False)

    async def on_stop(self, reason: StopReason) -> None:
        self._stop.set()
        if self._server is not None:
            await self._server.wait()

    def _app(self, keys: Mapping[str, Secret]) -> LimitedApp:
        routed = route(self.routes(keys), {HTTPException: on_http_exception})
        return LimitedApp(
            routed,
            self.gateway,
            name="gateway",
            crashed=self._note_crash,
            killed=self._fail_actor,
            refusal=refusal_response,
        )

    def routes(self, keys: Mapping[str, Secret]) -> Sequence[BaseRoute]:
        """Return the routes of everything that is served; the shop's only if `keys` has a key of a front end."""

        def pool() -> Pool:
            return pool_of(self.context, self.pool)

        seal = seal_opener(self.withdrawals, self.embedded)
        shop = Shop(keys, pool, self._providers, seal, self.limits, self.trials, publish=self.context.publish)
        return [
            Route("/healthz", self._healthz),
            *payment_routes(Intake.of(self.context, self.pool), self._providers),
            *link_routes(self.shop, pool),
            *(shop_routes(load_description(), shop) if keys else ()),
        ]

    async def _healthz(self, _: Request) -> Response:
        """Whether events can be stored now, from memory: 200 or 503, and the providers that are on."""
        is_ready, why = self.context.lookup(self.pool).address.readiness
        answer = {"ready": is_ready, "why": why, "providers": sorted(self._providers)}
        return JSONResponse(answer, 200 if is_ready else 503)

    async def _serve(self, app: LimitedApp, listener: socket.socket) -> None:
        try:
            await HttpServer("gateway", app, self.gateway, self._note_crash).run(listener, self._stop)
        finally:
            with trio.CancelScope(shield=True):
                await close_providers(self._providers)

    def _note_crash(self, error: str) -> None:
        _log.error("a request or its connection failed", actor=self.context.name, what=error)

    async def _fail_actor(self, killed: Killed) -> None:
        """End this actor with the failpoint's error, as a crash would: requests that wait for an answer get none."""
        self._error = killed
        self._failed.set()
        await trio.sleep_forever()

    async def _raise_when_failed(self) -> None:
        await self._failed.wait()
        assert self._error is not None
        raise self._error
