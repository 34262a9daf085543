"""What is installed from the wheel works in an empty directory: nothing of the checkout is needed."""

from __future__ import annotations

import stat
import tomllib
import zipfile
from pathlib import Path

from tests.e2e.customer import client
from tests.e2e.origin import origin
from tests.e2e.stack import REPOSITORY
from tests.ship.installation import place


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_an_installed_wheel_begins_runs_and_sells_in_an_empty_directory(program: Path) -> None:
    async with place(program) as here, origin() as site:
        nothing = await here.atlas("check")
        assert nothing.status == 78
        assert "`atlas init` writes one here" in nothing.stderr

        begun = await here.ok("init", "--operator", "anna")
        assert "next: atlas check; atlas run" in begun.stdout
        assert (mode(here.home / "supervisor.toml"), mode(here.home / "secrets")) == (0o600, 0o700)
        token_file = here.home / "secrets" / "operator.anna"
        assert {mode(path) for path in (here.home / "secrets").iterdir()} == {0o600}
        text = (here.home / "supervisor.toml").read_text()
        assert not [path for path in (here.home / "secrets").iterdir() if path.read_text().strip() in text]

        assert "operators: anna (owner)" in (await here.ok("check")).stdout
        here.env["ATLAS_OPERATOR_TOKEN_FILE"] = str(token_file)
        who = (await here.ok("operators", "whoami", "--json")).json
        assert (who["name"], who["role"], who["how"]) == ("anna", "owner", "token")
        del here.env["ATLAS_OPERATOR_TOKEN_FILE"]
        assert (await here.ok("operators", "whoami", "--json")).json["how"] == "unix"

        async with here.running():
            link = await here.buy(42, "first")
            async with client(here, link) as proxy:
                await here.until_fetched(proxy, site.port)


async def test_init_replaces_nothing_and_is_whole_or_not_there(program: Path) -> None:
    async with place(program) as here:
        await here.ok("init")
        before = {path: path.read_bytes() for path in here.home.rglob("*") if path.is_file()}
        again = await here.atlas("init")
        assert again.status == 78
        assert "exists already, and nothing was written" in again.stderr
        assert {path: path.read_bytes() for path in here.home.rglob("*") if path.is_file()} == before
        (here.home / "supervisor.toml").unlink()
        assert (await here.atlas("init")).status == 78  # the secrets alone are somebody's as well
        assert sorted(path.name for path in here.home.iterdir()) == ["secrets"]


async def test_the_version_is_that_of_the_change_log_and_of_the_wheel(program: Path) -> None:
    async with place(program) as here:
        said = (await here.ok("--version")).stdout
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert said == f"atlas, version {declared}\n"
    headings = [
        line[3:].split()[0] for line in (REPOSITORY / "CHANGELOG.md").read_text().splitlines() if line[:3] == "## "
    ]
    assert declared in headings[:1] or headings[0] == "Unreleased"
    (wheel,) = program.parents[2].glob("*.whl")
    assert wheel.name == f"atlas-{declared}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as packed:
        rooms = {name.split("/")[0] for name in packed.namelist()}
    assert rooms == {"runtime", "actors", "db", "vpn", f"atlas-{declared}.dist-info"}
