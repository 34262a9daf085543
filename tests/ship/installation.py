"""An installation as an operator has one: a directory that `atlas init` began, and an installed `atlas`."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from runtime.child_process import PIPE, ChildProcess, spawn
from tests.e2e import socks
from tests.e2e.origin import PAGE
from tests.e2e.stack import REPOSITORY, Outcome, Stack

PATIENCE = 300.0


@attrs.define(eq=False)
class Installation(Stack):
    """One directory, and the program that works on it. `program` is a file; without one it is the source of this checkout."""

    program: Path | None = None

    @property
    def command(self) -> list[str]:
        """How `atlas` is called."""
        return [str(self.program)] if self.program is not None else [sys.executable, "-m", "runtime.cli.main"]

    async def atlas(self, *arguments: str, within: float = PATIENCE) -> Outcome:
        """Run one command to its end, in a process of its own."""
        with trio.fail_after(within):
            done = await trio.run_process(
                [*self.command, *arguments],
                env=self.env,
                cwd=self.home,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    def spawn(self, *arguments: str) -> ChildProcess:
        """Start `atlas …` and leave it running; its two outputs are pipes."""
        return spawn(
            [*self.command, *arguments], name=arguments[0], env=self.env, cwd=self.home, stdout=PIPE, stderr=PIPE
        )

    def at(self, home: Path) -> Installation:
        """Another directory, with the same program and environment."""
        return Installation(home, {**self.env, "ATLAS_TEST_HOME": str(home)}, program=self.program)

    async def buy(self, customer: int, charge: str) -> str:
        """A customer who pays, and the link that leads somewhere now."""
        await self.ok("customer", "add", str(customer))
        await self.ok(
            *("buy", "--customer", str(customer), "--tariff", "basic", "--days", "30"),
            *("--provider", "manual", "--charge", charge, "--amount", "14900"),
        )
        return await self.link(customer)

    async def link(self, customer: int) -> str:
        """The customer's link, once every node has the key."""
        with trio.fail_after(PATIENCE):
            while True:
                shown = (await self.ok("subscription", str(customer), "--json")).json
                if shown["state"] == "active":
                    return str(shown["link"])

    async def until_fetched(self, proxy: int, port: int) -> None:
        """Return once a page came through the tunnel."""
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    assert await socks.fetch(proxy, port) == PAGE
                    return
                except socks.Refused:
                    await trio.lowlevel.checkpoint()


@asynccontextmanager
async def place(program: Path | None = None, **more: str) -> AsyncIterator[Installation]:
    """An empty directory that everybody can reach, and is removed at the end with all that was made beside it."""
    root = Path(tempfile.mkdtemp(prefix="atlas-ship-"))
    root.chmod(0o755)
    home = root / "first"
    home.mkdir(mode=0o755)
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ATLAS_")},
        "ATLAS_TEST_HOME": str(home),
        "ATLAS__ADMIN__PORT": "0",
        "ATLAS__GATEWAY__PORT": "0",
        **more,
    }
    env.pop("PYTHONPATH", None)
    if program is None:
        env["PYTHONPATH"] = str(REPOSITORY)
    try:
        yield Installation(home, env, program=program)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def empty_sibling(here: Installation, name: str) -> Path:
    """An empty directory beside the first one, that everybody can reach."""
    found = here.home.parent / name
    found.mkdir(mode=0o755)
    return found
