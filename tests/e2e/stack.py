"""A whole installation for one test: `atlas run` on a directory of its own, driven by its own commands as real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from runtime.child_process import PIPE, ChildProcess, spawn
from tests.e2e.made_cluster import copy_cluster
from tests.fork_server import shared_fork_server

REPOSITORY = Path(__file__).parent.parent.parent
ATLAS = [sys.executable, "-m", "runtime.cli.main"]
READY = "\nnext:\n"
"The heading that the start screen ends with; once it is printed, everything is up."
MOVES_MONEY = {
    "buy",
    "buy-from-balance",
    "topup",
    "grant",
    "trial",
    "refund",
    "adjust",
    "withdrawals",
    "cases",
    "compensate",
    "revoke",
}


@attrs.frozen
class Outcome:
    """What a finished command left behind."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, object]:
        """Standard output read as one JSON object."""
        value = json.loads(self.stdout)
        assert isinstance(value, dict)
        return value


@attrs.define(eq=False)
class Stack:
    """One installation: its directory, its environment, and `atlas run` while it runs."""

    home: Path
    env: dict[str, str]
    supervisor: ChildProcess | None = None
    screen: str = ""
    log: str = ""
    prefix: tuple[str, ...] = ()
    """Put before every command, such as to run it as another user."""
    moves_money: bool = False
    """A command that moves money was given here: the money views are looked at before the end."""

    async def atlas(self, *arguments: str, within: float = 120.0) -> Outcome:
        """Run one operator command to its end, in a process of its own; see `tests.fork_server`."""
        self.moves_money = self.moves_money or arguments[0] in MOVES_MONEY
        with trio.fail_after(within):
            if not self.prefix and arguments[0] != "run":
                server = shared_fork_server("runtime.cli.main")
                return Outcome(*await server.run_process(arguments, env=self.env, cwd=self.home))
            done = await trio.run_process(
                [*self.prefix, *ATLAS, *arguments],
                env=self.env,
                cwd=self.home,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    async def ok(self, *arguments: str) -> Outcome:
        """Run one operator command that must succeed."""
        outcome = await self.atlas(*arguments)
        assert outcome.status == 0, (
            f"atlas {' '.join(arguments)} → {outcome.status}\n{outcome.stdout}\n{outcome.stderr}"
        )
        return outcome

    async def status(self) -> dict[str, object]:
        """What `atlas status --json` says, whether something needs a human (exit code 1) or not."""
        outcome = await self.atlas("status", "--json")
        assert outcome.status in (0, 1), f"atlas status → {outcome.status}\n{outcome.stdout}\n{outcome.stderr}"
        return outcome.json

    def spawn(self, *arguments: str) -> ChildProcess:
        """Start `atlas …` and leave it running; its two outputs are pipes."""
        return spawn(
            [*self.prefix, *ATLAS, *arguments], name=arguments[0], env=self.env, cwd=self.home, stdout=PIPE, stderr=PIPE
        )

    @asynccontextmanager
    async def running(self, *, within: float = 180.0) -> AsyncIterator[ChildProcess]:
        """`atlas run` from its start screen to its ordered end; its output is collected in `screen` and `log`."""
        supervisor = self.supervisor = self.spawn("run")
        assert supervisor.stdout is not None
        assert supervisor.stderr is not None
        ready = trio.Event()
        self.screen = self.log = ""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._collect, supervisor.stdout, ready)
            nursery.start_soon(self._collect, supervisor.stderr, ready)
            try:
                with trio.move_on_after(within) as patience:
                    await ready.wait()
                assert not patience.cancelled_caught, f"no start screen after {within} s:\n{self.log}"
                assert READY in self.screen, f"ended instead of starting:\n{self.log}"
                yield supervisor
                if self.moves_money and supervisor.returncode is None:
                    looked = await self.atlas("verify")
                    assert looked.status != os.EX_DATAERR, f"money does not add up:\n{looked.stdout}"
            finally:
                with trio.CancelScope(shield=True):
                    await supervisor.stop(signal.SIGINT, grace=30)
                    await supervisor.close()
                nursery.cancel_scope.cancel()

    async def _collect(self, stream: trio.lowlevel.FdStream, ready: trio.Event) -> None:
        try:
            async for part in stream:
                text = part.decode(errors="replace")
                self.log += text
                if READY in self.log and not ready.is_set():
                    self.screen = self.log
                    ready.set()
        except trio.ClosedResourceError:
            pass
        ready.set()

    def processes(self) -> list[str]:
        """The command lines of every living process that belongs to this installation."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(self.home) in command + environment:
                found.append(command.replace(b"\0", b" ").decode(errors="replace").strip())
        return found


@asynccontextmanager
async def stack(extra: Mapping[str, str] | None = None, *, migrated: bool = False) -> AsyncIterator[Stack]:
    """An installation in a new directory that is removed at the end. `extra` adds to its environment.

    `migrated`: its embedded database has been made and migrated before, which is most of the work of a first start. Without it,
    there is nothing yet.
    """
    home = Path(tempfile.mkdtemp(prefix="atlas-e2e-"))
    home.chmod(0o755)
    shutil.copy(REPOSITORY / "supervisor.toml", home)
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ATLAS_")},
        "PYTHONPATH": str(REPOSITORY),
        "ATLAS_TEST_HOME": str(home),
        "ATLAS__EMBEDDED__DATA_DIR": str(home / "data"),
        "ATLAS__CONTROL__SOCKET": str(home / "control.sock"),
        "ATLAS__ADMIN__PORT": "0",
        "ATLAS__GATEWAY__PORT": "0",
        **(extra or {}),
    }
    try:
        if migrated:
            await copy_cluster(home / "data", env.get("ATLAS__DATABASE__PURPOSE", "production"))
        yield Stack(home, env)
    finally:
        shutil.rmtree(home, ignore_errors=True)
