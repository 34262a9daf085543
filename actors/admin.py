"""The admin listener: is the process alive, is it ready, has it started, and its metrics, over HTTP."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from typing import cast

import anycorn
import attrs
import trio
from anycorn.typing import Framework

from actors.admin_routes import admin_app
from runtime.actor import Actor
from runtime.actor_task import ActorTask
from runtime.child import StopReason
from runtime.config.secret import Secret
from runtime.config.settings import settings
from runtime.errors import StartRefused

_BACKLOG = 64


@settings("admin")
@attrs.frozen
class AdminSettings:
    """Where the admin listener listens."""

    host: str = "127.0.0.1"
    "The address. Anything but loopback needs a token."
    port: int = attrs.field(default=8600, validator=[attrs.validators.ge(0), attrs.validators.le(65535)])
    "The TCP port; 0 takes a free one, shown by `atlas status`."
    token: Secret = attrs.field(factory=lambda: Secret(""))
    "If set, `/metrics` is answered only with `Authorization: Bearer <token>`. The probes are always open."


@attrs.define(eq=False)
class Admin(Actor):
    """Serves `/livez`, `/readyz`, `/startupz` and `/metrics`.

    Role: the eyes of load balancers, Kubernetes and Prometheus. Owns: one listening socket. Receives and sends nothing.
    On crash: the socket is closed and opened again; no other actor notices.
    Invariants: an answer never waits for the database, a node or another actor; malformed HTTP ends its own connection.
    """

    admin: AdminSettings
    _server: ActorTask | None = attrs.field(init=False, default=None)
    _stop: trio.Event = attrs.field(init=False, factory=trio.Event)

    async def on_start(self) -> None:
        listener = _listen(self.admin)
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self.context.describe(listening=url, probes=f"{url}/readyz", metrics=f"{url}/metrics")
        self._server = self.context.start_task(self._serve, listener, name="serve http", inherit_deadline=False)

    async def on_stop(self, reason: StopReason) -> None:
        self._stop.set()
        if self._server is not None:
            await self._server.wait()

    async def _serve(self, listener: socket.socket) -> None:
        config = anycorn.Config()
        # The server closes the descriptor that it is given: this one is its own.
        config.bind = [f"fd://{os.dup(listener.fileno())}"]
        config.accesslog = None
        config.errorlog = None
        config.graceful_timeout = 1.0
        config.h11_max_incomplete_size = 16 * 1024
        app = admin_app(self.context.services, self.admin.token)
        try:
            await anycorn.serve(cast("Framework", app), config, shutdown_trigger=self._stop.wait)
        finally:
            # Also if the server was cancelled before it closed its own: nobody must be let in whom nobody answers.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


def _listen(admin: AdminSettings) -> socket.socket:
    """The listening socket. Raises `StartRefused` if it cannot or must not be opened."""
    if not admin.token and not _is_loopback(admin.host):
        raise StartRefused(
            f"admin.host = {admin.host!r} can be reached from other machines, and admin.token_file is not set: metrics "
            "would be open to all; set it, or listen on 127.0.0.1",
            exit_code=os.EX_CONFIG,
        )
    family = socket.AF_INET6 if ":" in admin.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((admin.host, admin.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StartRefused(
            f"the admin listener cannot listen on {admin.host} port {admin.port}: {error.strerror}; "
            "stop the program that has it, or set admin.port to another (0 takes a free one)",
            exit_code=os.EX_UNAVAILABLE,
        ) from error
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
