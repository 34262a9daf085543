"""The admin listener: is the process alive, is it ready, has it started, and its metrics, over HTTP."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Mapping

import attrs
import trio
from attrs.validators import ge, le
from starlette.types import ASGIApp, Receive, Scope, Send

from actors.desk.backlog import BacklogWatch
from actors.desk.corrections import Corrections
from actors.desk.customers import Customers
from actors.desk.money import MoneyPages
from actors.desk.nodes import nodes_addition
from actors.desk.pools import pools_addition
from actors.desk.routes import PROBES, admin_app
from actors.desk.trail import ActionTrail
from actors.desk.withdrawals import Withdrawals
from actors.desk.work import Work
from actors.payments.settings import PaymentSettings
from actors.pool.client import pool_of
from db.money import Money
from db.settings import LimitSettings, WithdrawalSettings
from runtime import Actor, ActorTask, StopReason, get_logger, running_system
from runtime.config import Secret, settings
from runtime.desk import Addition, Desk, desk_app
from runtime.http import HttpServer, LimitedApp, LocalHosts, RequestLimits, is_loopback, listen, url_of
from runtime.operators import Operators

_log = get_logger("admin")
_LEAST_KEY = 32
_POOL = "pool.main"


def optional_url(_: object, __: object, url: str) -> None:
    """Refuse what is no URL of a host alone."""
    if url and not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+", url):
        raise ValueError(f"must be a scheme and a host, such as https://desk.example, got {url[:80]!r}")


@settings("admin")
@attrs.frozen
class AdminSettings(RequestLimits):
    """Where the admin listener listens, and what a stranger may cost it."""

    host: str = "127.0.0.1"
    """The address. Anything but loopback needs a token."""
    port: int = attrs.field(default=8600, validator=[ge(0), le(65535)])
    """The TCP port; 0 takes a free one, shown by `atlas status`."""
    hosts: tuple[str, ...] = ()
    """Names, without a port, that it answers to on loopback besides `localhost` and loopback addresses: those by which a proxy on
    this machine passes requests on. Any other name gets 421, so that no foreign page can read it through a browser."""
    public_url: str = attrs.field(default="", validator=optional_url)
    """Where browsers reach the desk through a proxy, such as `https://desk.example`. Its cookies are then for HTTPS alone."""
    session_key: Secret = attrs.field(factory=lambda: Secret(""))
    """The secret of the desk's cookies, such as 32 random bytes in hexadecimal. Without one, sessions end with the process."""
    token: Secret = attrs.field(factory=lambda: Secret(""))
    """If set, `/metrics` is answered only with `Authorization: Bearer <token>`. The probes are always open."""

    def check_configuration(self) -> Iterable[str]:
        """Refuse to be open to all, and a secret that can be guessed."""
        yield from super().check_configuration()
        if not self.token and not is_loopback(self.host):
            yield (
                f"admin.host = {self.host!r} can be reached from other machines, and admin.token_file is not set: metrics would "
                "be open to all; set it, or listen on 127.0.0.1"
            )
        length = len(self.session_key.reveal())
        if 0 < length < _LEAST_KEY:
            yield f"admin.session_key has {length} characters and needs {_LEAST_KEY}; `openssl rand -hex 32` makes one"


@attrs.define(eq=False)
class Admin(Actor):
    """Serves `/livez`, `/readyz`, `/startupz` and `/metrics`, and the desk on all other paths.

    Role: the eyes of load balancers, Kubernetes and Prometheus, and the desk of operators. Owns: one listening socket. Receives
    and sends nothing. On crash: the socket is closed and opened again; no other actor notices, and sessions go on.
    Invariants: a probe never waits for the database, a node or another actor; malformed HTTP ends its own connection, and a
    client that does not read holds up nothing.
    """

    admin: AdminSettings
    limits: LimitSettings = attrs.field(factory=LimitSettings)
    """What a customer may ask for; the desk is held to it as the command line is."""
    withdrawals: WithdrawalSettings = attrs.field(factory=WithdrawalSettings)
    payments: PaymentSettings = attrs.field(factory=PaymentSettings)
    """Which providers are on, and so can be asked to give money back."""
    _server: ActorTask | None = attrs.field(init=False, default=None)
    _backlog: BacklogWatch | None = attrs.field(init=False, default=None)
    _trail: ActionTrail | None = attrs.field(init=False, default=None)
    _stop: trio.Event = attrs.field(init=False, factory=trio.Event)

    async def on_start(self) -> None:
        desk = self._desk()
        app = self._app(desk)
        listener = listen("admin", self.admin.host, self.admin.port)
        url = url_of(listener)
        self.context.describe(listening=url, probes=f"{url}/readyz", metrics=f"{url}/metrics")
        if desk is not None:
            self.context.describe(desk=self.admin.public_url or url)
        self._server = self.context.start_task(
            self._serve, app, desk, listener, name="serve http", inherit_deadline=False
        )

    async def on_stop(self, reason: StopReason) -> None:
        self._stop.set()
        if self._server is not None:
            await self._server.wait()

    def _desk(self) -> Desk | None:
        """The desk of the system that this actor is part of; None where an actor stands alone."""
        try:
            system = running_system()
        except RuntimeError:
            return None
        additions: list[Callable[[Desk], Addition]] = []
        if _POOL in self.context.services.registry:
            pool = pool_of(self.context, _POOL)
            self._backlog, self._trail = BacklogWatch(pool), ActionTrail(pool)
            customers = Customers(pool, self.limits)
            withdrawals = Withdrawals(pool, self._second_above(system.config.operators))
            additions = [
                self._backlog.addition,
                pools_addition,
                lambda desk: nodes_addition(desk, pool),
                lambda _desk: Work(pool).addition(),
                lambda _desk: customers.addition(),
                lambda _desk: Corrections(customers, self.payments).addition(),
                lambda _desk: MoneyPages(pool).addition(),
                lambda _desk: withdrawals.addition(),
            ]
        return Desk(
            system,
            lambda: Operators(system.config.operators),
            additions=additions,
            session_key=self.admin.session_key.reveal().encode(),
            is_https=self.admin.public_url.startswith("https:"),
        )

    def _second_above(self, operators: Mapping[str, object]) -> Money | None:
        """As on the command line: where no operators are declared nobody can be the second one."""
        return Money(self.withdrawals.second_operator_above) if operators else None

    def _app(self, desk: Desk | None) -> LimitedApp:
        app: ASGIApp = admin_app(self.context.services, self.admin.token)
        if is_loopback(self.admin.host):
            app = LocalHosts(app, self.admin.hosts, setting="admin.hosts")
        if desk is not None:
            app = _Both(app, desk_app(desk, self.admin.hosts, self.admin.public_url))
        return LimitedApp(app, self.admin, name="admin", crashed=self._note_crash)

    async def _serve(self, app: LimitedApp, desk: Desk | None, listener: socket.socket) -> None:
        server = HttpServer("admin", app, self.admin, self._note_crash)
        if desk is None:
            await server.run(listener, self._stop)
            return
        async with trio.open_nursery() as nursery:

            async def close() -> None:
                # Streams have no end of their own: they end first, so that the server does not wait for them.
                await self._stop.wait()
                desk.closing.set()

            nursery.start_soon(close)
            unsubscribe = _nothing
            if self._backlog is not None:
                nursery.start_soon(self._backlog.run)
            if self._trail is not None:
                unsubscribe = self._trail.subscribe(self.context.services.events)
                nursery.start_soon(self._trail.run)
            try:
                async with desk.running():
                    await server.run(listener, self._stop)
            finally:
                unsubscribe()
            nursery.cancel_scope.cancel(reason="the server has stopped")

    def _note_crash(self, error: str) -> None:
        _log.error("a request or its connection failed", actor=self.context.name, what=error)


def _nothing() -> None:
    """What ends no subscription."""


class _Both:
    """Probes and metrics by one app, all other paths by the desk."""

    def __init__(self, probes: ASGIApp, desk: ASGIApp) -> None:
        self._probes = probes
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await (self._probes if scope["path"] in PROBES else self._desk)(scope, receive, send)
