"""The admin listener: is the process alive, is it ready, has it started, and its metrics, over HTTP."""

from __future__ import annotations

import socket
from collections.abc import Iterable

import attrs
import trio
from attrs.validators import ge, le
from starlette.types import ASGIApp

from actors.desk.routes import admin_app
from runtime import Actor, ActorTask, StopReason, get_logger
from runtime.config import Secret, settings
from runtime.http import HttpServer, LimitedApp, LocalHosts, RequestLimits, is_loopback, listen, url_of

_log = get_logger("admin")


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
    token: Secret = attrs.field(factory=lambda: Secret(""))
    """If set, `/metrics` is answered only with `Authorization: Bearer <token>`. The probes are always open."""

    def check_configuration(self) -> Iterable[str]:
        """Refuse to be open to all."""
        yield from super().check_configuration()
        if not self.token and not is_loopback(self.host):
            yield (
                f"admin.host = {self.host!r} can be reached from other machines, and admin.token_file is not set: metrics would "
                "be open to all; set it, or listen on 127.0.0.1"
            )


@attrs.define(eq=False)
class Admin(Actor):
    """Serves `/livez`, `/readyz`, `/startupz` and `/metrics`.

    Role: the eyes of load balancers, Kubernetes and Prometheus. Owns: one listening socket. Receives and sends nothing.
    On crash: the socket is closed and opened again; no other actor notices.
    Invariants: an answer never waits for the database, a node or another actor; malformed HTTP ends its own connection, and a
    client that does not read holds up nothing.
    """

    admin: AdminSettings
    _server: ActorTask | None = attrs.field(init=False, default=None)
    _stop: trio.Event = attrs.field(init=False, factory=trio.Event)

    async def on_start(self) -> None:
        app = self._app()
        listener = listen("admin", self.admin.host, self.admin.port)
        url = url_of(listener)
        self.context.describe(listening=url, probes=f"{url}/readyz", metrics=f"{url}/metrics")
        self._server = self.context.start_task(self._serve, app, listener, name="serve http", inherit_deadline=False)

    async def on_stop(self, reason: StopReason) -> None:
        self._stop.set()
        if self._server is not None:
            await self._server.wait()

    def _app(self) -> LimitedApp:
        app: ASGIApp = admin_app(self.context.services, self.admin.token)
        if is_loopback(self.admin.host):
            app = LocalHosts(app, self.admin.hosts, setting="admin.hosts")
        return LimitedApp(app, self.admin, name="admin", crashed=self._note_crash)

    async def _serve(self, app: LimitedApp, listener: socket.socket) -> None:
        await HttpServer("admin", app, self.admin, self._note_crash).run(listener, self._stop)

    def _note_crash(self, error: str) -> None:
        _log.error("a request or its connection failed", actor=self.context.name, what=error)
