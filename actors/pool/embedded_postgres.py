"""The embedded PostgreSQL: a database for a machine that has none, as a supervised child process."""

from __future__ import annotations

import os
import signal

import attrs
import trio

from db.embedded import Cluster, ClusterError, EmbeddedSettings, prepare
from db.settings import DatabaseSettings
from runtime import Actor, Ignore, StopReason, get_logger
from runtime.child_process import ChildProcess, lines

log = get_logger("postgres")

_PREDECESSOR_SECONDS = 10.0
_FAST_STOP_SECONDS = 5.0
_LOUD = ("ERROR:", "FATAL:", "PANIC:")


class ServerEnded(RuntimeError):
    """The embedded PostgreSQL ended by itself, without being stopped."""


@attrs.define(eq=False)
class EmbeddedPostgres(Actor):
    """Keeps one PostgreSQL server running in the foreground on a data directory that survives restarts.

    Role: the database of a machine that has none. With `database.dsn` set it is not needed and answers `ignore`.
    Owns: the server process, its data and its sockets. Receives and sends nothing.
    On crash: the server is stopped with it (fast, then by force) and started again; pools see an outage, not a crash.
    Invariants: at most one server a data directory; started means that it accepts connections; no server outlives the
    supervisor, however that ends.
    """

    database: DatabaseSettings
    embedded: EmbeddedSettings
    _server: ChildProcess | None = attrs.field(init=False, default=None)

    async def on_start(self) -> None:
        if self.database.dsn:
            raise Ignore("database.dsn names a server of your own")
        cluster = await prepare(self.embedded)
        await self._await_predecessor(cluster)
        server = self._server = cluster.start()
        self.context.start_task(self._keep, server, name="keep server", inherit_deadline=False)
        self.context.start_task(self._relay_log, server, name="relay server log", inherit_deadline=False)
        await cluster.until_ready(server)
        self.context.describe(
            version=f"PostgreSQL {cluster.binaries.version}",
            data=str(cluster.layout.data),
            socket=str(cluster.layout.sockets),
            pid=str(server.pid),
        )

    async def on_stop(self, reason: StopReason) -> None:
        if self._server is not None:
            await self._server.stop(signal.SIGINT, grace=_FAST_STOP_SECONDS)

    async def _await_predecessor(self, cluster: Cluster) -> None:
        with trio.move_on_after(_PREDECESSOR_SECONDS):
            return await cluster.wait_for_predecessor()
        raise ClusterError(
            f"another PostgreSQL has held the data directory {cluster.layout.data} for {_PREDECESSOR_SECONDS:g} s; its pid is "
            "the first line of postmaster.pid there: stop the supervisor that owns it, or set embedded.data_dir to another place",
            exit_code=os.EX_UNAVAILABLE,
        )

    async def _keep(self, server: ChildProcess) -> None:
        # Also on a crash or a kill of this actor, when on_stop does not run.
        status = await server.keep(signal.SIGINT, grace=_FAST_STOP_SECONDS)
        if not self.context.stopping:
            raise ServerEnded(
                f"PostgreSQL (pid {server.pid}) ended by itself with status {status}; its last words are in the log"
            )

    async def _relay_log(self, server: ChildProcess) -> None:
        assert server.stderr is not None
        async for line in lines(server.stderr):
            _log_line(line)


def _log_line(line: str) -> None:
    level, _, text = line.partition(":")
    if f"{level}:" in _LOUD:
        log.error(f"{level}: {text.strip()}")
    elif line.strip():
        log.debug(line.strip())
