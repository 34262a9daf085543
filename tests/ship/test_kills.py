"""Killed at any moment, a backup is whole or not there, and a restore is no installation until it is one."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import trio

from actors.backup.archive import read_archive
from runtime.child_process import lines
from tests.run_queue import Stopwatch
from tests.ship.installation import Installation, empty_sibling, place

PARTS = 6
"""How often each is killed: after so many equal parts of the time that it takes."""


async def killed_after(here: Installation, seconds: float, *arguments: str) -> bool:
    """Start a command and SIGKILL it after this time. True if it had not ended by itself."""
    child = here.spawn(*arguments)
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        with trio.move_on_after(seconds):
            assert await child.wait() == 0, [line async for line in lines(child.stderr)]
            return False
        child.send_signal(signal.SIGKILL)
        await child.wait()
        return True
    finally:
        await child.close()


async def test_a_backup_that_is_killed_leaves_a_whole_file_or_none() -> None:
    async with place() as here:
        await here.ok("init")
        async with here.running():
            await here.buy(42, "first")
            took = Stopwatch()
            first = here.home.parent / "first.backup"
            await here.ok("backup", str(first))
            whole, kills = took.seconds(), 0
            for part in range(1, PARTS + 1):
                file = here.home.parent / f"{part}.backup"
                kills += await killed_after(here, whole * part / PARTS, "backup", str(file))
                if file.exists():
                    with file.open("rb") as opened:
                        read_archive(opened)
                else:
                    await here.ok("backup", str(file))
                assert file.stat().st_mode & 0o777 == 0o600
            assert kills > 0
            assert (await here.ok("verify", "--json")).json["holds"] is True


async def test_a_restore_that_is_killed_is_no_installation_and_the_next_one_is() -> None:
    async with place() as here:
        await here.ok("init")
        backup = here.home.parent / "a.backup"
        async with here.running():
            link = await here.buy(42, "first")
            await here.ok("backup", str(backup))
        there = here.at(empty_sibling(here, "second"))
        took = Stopwatch()
        await there.ok("restore", str(backup), ".")
        whole, kills = took.seconds(), 0
        shutil.rmtree(there.home)
        there.home.mkdir(mode=0o755)
        for part in range(1, PARTS):
            kills += await killed_after(there, whole * part / PARTS, "restore", str(backup), ".")
            if (there.home / "supervisor.toml").exists():
                shutil.rmtree(there.home)
                there.home.mkdir(mode=0o755)
        assert kills > 0
        await there.ok("restore", str(backup), ".")
        assert not list(there.home.rglob(".restoring"))
        async with there.running():
            assert await there.link(42) == link
            assert (await there.ok("verify", "--whole", "--json")).json["holds"] is True


async def test_only_the_holder_of_the_key_reads_an_encrypted_backup_and_age_does_too(tmp_path: Path) -> None:
    key = tmp_path / "key"
    made = await trio.run_process(["/usr/bin/age-keygen", "-o", str(key)], capture_stderr=True)
    recipient = made.stderr.decode().split()[-1]
    async with place() as here:
        await here.ok("init")
        encrypted, by_age = here.home.parent / "a.age", here.home.parent / "b.age"
        async with here.running():
            await here.ok("customer", "add", "42")
            made_one = await here.ok("backup", str(encrypted), "--recipient", recipient, "--json")
            assert made_one.json["encrypted"] is True
        assert b"manifest.json" not in encrypted.read_bytes()
        in_clear = tmp_path / "clear.tar"
        age = ["/usr/bin/age", "--output"]
        await trio.run_process([*age, str(in_clear), "--decrypt", "--identity", str(key), str(encrypted)])
        with in_clear.open("rb") as opened:
            read_archive(opened)
        await trio.run_process([*age, str(by_age), "--recipient", recipient, str(in_clear)])

        target = here.home.parent / "second"
        refused = await here.atlas("restore", str(encrypted), str(target))
        assert (refused.status, "--identity" in refused.stderr) == (64, True)
        other = tmp_path / "other"
        await trio.run_process(["/usr/bin/age-keygen", "-o", str(other)], capture_stderr=True)
        cut = here.home.parent / "cut.age"
        cut.write_bytes(encrypted.read_bytes()[:-1])
        for file, identity in ((encrypted, other), (cut, key), (encrypted, in_clear)):
            refused = await here.atlas("restore", str(file), str(target), "--identity", str(identity))
            assert (refused.status, target.exists()) == (65, False), refused.stderr
        there = here.at(empty_sibling(here, "third"))
        await there.ok("restore", str(by_age), ".", "--identity", str(key))
        async with there.running():
            await there.ok("customer", "show", "42")
