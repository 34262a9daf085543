"""To a newer version and back, to a database of one's own and back: by the steps of docs/howto/backup.md, with nothing lost."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.customer import client
from tests.e2e.origin import origin
from tests.postgres_cluster import cluster as cluster
from tests.postgres_cluster import empty_database_dsn as empty_database_dsn
from tests.ship.installation import Installation, empty_sibling, place
from tests.ship.wheel import build_wheel, new_environment

BEFORE = Path(__file__).parent / "before.tar.xz"
"""The source of an earlier version, whose schema is 23; kept as a file, because a clone need not have the history up to it."""


@pytest.fixture(scope="module")
def earlier() -> Iterator[Path]:
    """`atlas` of that state, built and installed as an operator had it; its configuration lies beside the environment."""
    root = Path(tempfile.mkdtemp(prefix="atlas-earlier-"))
    root.chmod(0o755)
    try:
        with tarfile.open(BEFORE) as source:
            source.extractall(root / "source", filter="data")
        yield new_environment(root / "venv", build_wheel(root, root / "source")) / "atlas"
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def test_an_upgrade_loses_nothing_and_the_backup_leads_back_to_the_earlier_version(
    earlier: Path, program: Path
) -> None:
    async with place(earlier) as old, origin() as site:
        shutil.copy(earlier.parents[2] / "source" / "supervisor.toml", old.home)
        new = Installation(old.home, old.env, program=program)
        backup = old.home.parent / "before.backup"
        async with old.running():
            link = await old.buy(42, "first")
            made = await new.ok("backup", str(backup), "--json")
            assert made.json["schema"] == 23

        async with new.running():
            assert await new.link(42) == link
            async with client(new, link) as proxy:
                await new.until_fetched(proxy, site.port)
            await new.buy(43, "second")
            assert (await new.ok("verify", "--whole", "--json")).json["holds"] is True

        back = Installation(empty_sibling(old, "back"), old.env, program=program)
        await back.ok("restore", str(backup), ".")
        again = Installation(back.home, old.env, program=earlier)
        async with again.running():
            assert await again.link(42) == link
            async with client(again, link) as proxy:
                await again.until_fetched(proxy, site.port)
            assert (await again.atlas("customer", "show", "43")).status != 0
            await again.ok("verify")


async def test_an_installation_moves_to_a_database_of_its_operators_and_back(
    empty_database_dsn: str, tmp_path: Path
) -> None:
    async with place() as here, origin() as site:
        await here.ok("init")
        embedded, own = here.home.parent / "embedded.backup", here.home.parent / "own.backup"
        async with here.running():
            link = await here.buy(42, "first")
            for pool in ("pool.main", "pool.gateway"):
                await here.ok("pool", "pause", pool)
            await here.ok("backup", str(embedded))

        dsn = tmp_path / "dsn"
        dsn.write_text(empty_database_dsn)
        dsn.chmod(0o600)
        there = here.at(empty_sibling(here, "second"))
        await there.ok("restore", "--dsn-file", str(dsn), str(embedded), ".")
        assert (there.home / "secrets" / "database.dsn").stat().st_mode & 0o777 == 0o600
        taken = await here.atlas("restore", "--dsn-file", str(dsn), str(embedded), str(here.home.parent / "third"))
        assert (taken.status, "an empty one only" in taken.stderr) == (78, True)
        async with there.running():
            assert await there.link(42) == link
            async with client(there, link) as proxy:
                await there.until_fetched(proxy, site.port)
            await there.buy(43, "second")
            await there.ok("backup", str(own))
            assert (await there.ok("verify", "--whole", "--json")).json["holds"] is True

        back = here.at(empty_sibling(here, "back"))
        unsaid = await back.atlas("restore", str(own), ".")
        assert (unsaid.status, "--embedded" in unsaid.stderr) == (64, True)
        await back.ok("restore", "--embedded", str(own), ".")
        async with back.running():
            assert await back.link(42) == link
            await back.link(43)
            assert (await back.ok("verify", "--whole", "--json")).json["holds"] is True
