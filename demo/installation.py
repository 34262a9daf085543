"""A whole installation in a directory of its own: `atlas run` as a child process, and its operator's commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from db.embedded import EmbeddedSettings, embedded_dsn, layout_of
from demo.errors import DemoFailed
from demo.providers import environment_of
from runtime.child_process import PIPE, ChildProcess, lines, spawn

_REPOSITORY: Final = Path(__file__).parent.parent
_ATLAS: Final = (sys.executable, "-m", "runtime.cli.main")
_STARTED: Final = "next:"
"The heading that the start screen ends with; once it is printed, everything is up."
_START_SECONDS: Final = 90.0
_STOP_SECONDS: Final = 40.0
_COMMAND_SECONDS: Final = 60.0
WOKEN_BY_WORK: Final = ("activation", "notifications", "reconcile")
"Actors that get work only from other actors, which wake them."
WOKEN_BY_TIME: Final = ("auto_renewal", "fast_expiry", "housekeeping", "payment_watcher", "reminders")
"Actors that look at the clock now and then; the demo wakes them when it has moved it."


class StackFailed(DemoFailed):
    """ATLAS did not start, ended by itself, or a command of it failed."""


@attrs.define(eq=False)
class Installation:
    """One installation: where it is, and what its environment says."""

    home: Path
    environment: dict[str, str] = attrs.field(repr=False)
    last_lines: deque[str] = attrs.field(factory=lambda: deque(maxlen=200), repr=False)
    errors: list[str] = attrs.field(factory=list, repr=False)
    """Lines of the log with level ERROR or CRITICAL, which go to standard error."""

    @property
    def settings(self) -> EmbeddedSettings:
        """Where its embedded parts are."""
        return EmbeddedSettings(data_dir=self.home / "data")

    @property
    def dsn(self) -> str:
        """Its database."""
        return embedded_dsn(self.settings)

    @property
    def node_token(self) -> str:
        """The bearer token of its node agent."""
        return (layout_of(self.settings).node / "local" / "token").read_text().strip()

    async def command(self, *arguments: str, allowed: tuple[int, ...] = (0,)) -> tuple[int, str]:
        """Run one operator command to its end; its exit code and output. Raises StackFailed for any other exit code."""
        with trio.fail_after(_COMMAND_SECONDS):
            done = await trio.run_process(
                [*_ATLAS, *arguments],
                env=self.environment,
                cwd=self.home,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        if done.returncode not in allowed:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise StackFailed(f"atlas {' '.join(arguments)} ended with {done.returncode}: {said[-500:]}")
        return done.returncode, done.stdout.decode()

    async def status(self) -> dict[str, Any]:
        """What `atlas status` knows."""
        _, said = await self.command("status", "--json", allowed=(0, 1))
        found = json.loads(said)
        assert isinstance(found, dict)
        return found

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ChildProcess]:
        """`atlas run` from its start to its ordered end. Raises StackFailed if it ends by itself."""
        process = spawn(
            [*_ATLAS, "run"], name="atlas run", env=self.environment, cwd=self.home, stdout=PIPE, stderr=PIPE
        )
        try:
            async with trio.open_nursery() as nursery:
                started = trio.Event()
                assert process.stdout is not None
                assert process.stderr is not None
                nursery.start_soon(self._read, lines(process.stdout), started, False)
                nursery.start_soon(self._read, lines(process.stderr), started, True)
                with trio.move_on_after(_START_SECONDS):
                    await started.wait()
                if not started.is_set() or process.returncode is not None:
                    raise StackFailed("atlas run did not start:\n" + "\n".join(self.last_lines))
                nursery.start_soon(self._watch, process)
                yield process
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await process.stop(signal.SIGTERM, grace=_STOP_SECONDS)
                await process.close()

    async def _read(self, said: lines, started: trio.Event, is_error: bool) -> None:
        async for line in said:
            self.last_lines.append(line)
            if line.strip() == _STARTED:
                started.set()
            if is_error:
                self.errors.append(line)
        started.set()

    async def _watch(self, process: ChildProcess) -> None:
        status = await process.wait()
        raise StackFailed(f"atlas run ended by itself with {status}:\n" + "\n".join(list(self.last_lines)[-20:]))


@asynccontextmanager
async def installation(extra: Mapping[str, str]) -> AsyncIterator[Installation]:
    """A new directory with a demo database to come; everything in it is removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="atlas-demo-"))
    home.chmod(0o755)
    shutil.copy(_REPOSITORY / "supervisor.toml", home)
    settings = {
        "database": {"purpose": "demo"},
        "embedded": {"data_dir": str(home / "data")},
        "control": {"socket": str(home / "control.sock")},
        "admin": {"port": "0"},
        # All customers behind one address.
        "gateway": {"port": "0", "rate": "10000", "burst": "10000"},
        "actor.pool_main.args": {"wakes": json.dumps([*WOKEN_BY_WORK, *WOKEN_BY_TIME])},
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ATLAS_")}
    found = Installation(home, {**inherited, "PYTHONPATH": str(_REPOSITORY), **environment_of(settings), **extra})
    data = layout_of(found.settings).home
    try:
        yield found
    finally:
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)
