"""A lost installation comes back from one file: the money adds up, and the links that customers have go on working."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from tests.e2e.customer import client
from tests.e2e.origin import origin
from tests.e2e.test_lifecycle import until_gone
from tests.run_queue import descendants
from tests.ship.installation import Installation, empty_sibling, place


async def identity(here: Installation) -> str:
    (found,) = here.home.rglob("identity.json")
    return found.read_text()


async def test_a_lost_installation_comes_back_and_old_links_carry_packets() -> None:
    async with place() as here, origin() as site:
        await here.ok("init")
        backup = here.home.parent / "a.backup"
        async with here.running() as supervisor:
            link = await here.buy(42, "first")
            async with client(here, link) as proxy:
                await here.until_fetched(proxy, site.port)
            made = await here.ok("backup", str(backup), "--json")
            assert (made.json["encrypted"], made.json["nodes"]) == (False, ["local"])
            assert backup.stat().st_mode & 0o777 == 0o600
            await here.buy(43, "after the backup")
            before = await identity(here)
            family = descendants(supervisor.pid)
            supervisor.send_signal(signal.SIGKILL)
            await supervisor.wait()
            await until_gone(family, within=30)
        token = (here.home / "secrets").glob("operator.*")
        kept = {path.name: path.read_text() for path in token}
        shutil.rmtree(here.home)

        there = here.at(empty_sibling(here, "second"))
        told = await there.ok("restore", str(backup), ".")
        assert "next: cd ." in told.stdout
        assert await identity(there) == before
        assert {name: (there.home / "secrets" / name).read_text() for name in kept} == kept
        async with there.running():
            async with client(there, link) as proxy:
                await there.until_fetched(proxy, site.port)
            assert await there.link(42) == link
            assert (await there.atlas("customer", "show", "43")).status == 67
            assert (await there.ok("operators", "whoami", "--json")).json["role"] == "owner"
            verified = await there.ok("verify", "--whole", "--json")
            assert verified.json["holds"] is True
            status = await there.atlas("status")
            assert status.stdout
            assert "another installation" not in status.stdout
            await there.buy(44, "after the restore")
        assert not list(there.home.rglob(".restoring"))


async def test_a_backup_that_is_not_whole_or_a_place_that_is_taken_changes_nothing(tmp_path: Path) -> None:
    async with place() as here:
        await here.ok("init")
        backup = here.home.parent / "a.backup"
        async with here.running():
            await here.ok("backup", str(backup))
            again = await here.atlas("backup", str(backup))
            assert (again.status, "exists already" in again.stderr) == (64, True)
        content = backup.read_bytes()
        damaged = here.home.parent / "damaged"
        target = here.home.parent / "second"
        for spoilt in (
            content[:-1],
            content[: len(content) // 2],
            content[:-3000] + b"x" + content[-2999:],
            b"",
            b"x" * 9999,
        ):
            damaged.write_bytes(spoilt)
            refused = await here.atlas("restore", str(damaged), str(target))
            assert (refused.status, refused.stdout) == (65, ""), refused.stderr
            assert not target.exists()
        target.mkdir()
        (target / "mine").write_text("mine")
        refused = await here.atlas("restore", str(backup), str(target))
        assert (refused.status, "not empty" in refused.stderr) == (78, True)
        assert [path.name for path in target.iterdir()] == ["mine"]
        refused = await here.atlas("restore", str(backup), str(here.home))
        assert refused.status == 78
        assert not (here.home / ".restoring").exists()
