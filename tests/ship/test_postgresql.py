"""A PostgreSQL of the operator's own: back to any moment from its archive, and through the loss of its primary."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import trio

from tests.e2e.customer import client
from tests.e2e.origin import origin
from tests.run_queue import Stopwatch
from tests.ship.installation import PATIENCE, place
from tests.ship.servers import DATABASE, archived_server, ask, copied_server

BUY = ("--tariff", "basic", "--days", "30", "--provider", "manual", "--amount", "14900")


async def test_a_lost_server_comes_back_from_its_archive_at_the_moment_that_is_asked_for() -> None:
    with archived_server() as (server, archive):
        async with place(ATLAS__DATABASE__DSN=server.dsn(DATABASE)) as here:
            await here.ok("init")
            await here.ok("db", "migrate")
            await here.ok("customer", "add", "42")
            base = {"archive_mode": "off", "restore_command": f"cp {archive}/%f %p"}
            with (
                copied_server(
                    server, {**base, "recovery_target_name": "before", "recovery_target_action": "promote"}
                ) as at,
                copied_server(server, base) as newest,
            ):
                await here.ok("buy", "--customer", "42", "--charge", "first", *BUY)
                ask(server, "SELECT pg_create_restore_point('before')")
                await here.ok("customer", "add", "43")
                last = ask(server, "SELECT pg_walfile_name(pg_switch_wal())")
                with trio.fail_after(PATIENCE):
                    while not (archive / last).exists():
                        await trio.lowlevel.checkpoint()
                assert server.process is not None
                server.process.send_signal(signal.SIGKILL)  # and its disk is gone as well
                server.process.wait()
                shutil.rmtree(server.data)

                for copy, customers in ((at, "1"), (newest, "2")):
                    (copy.data / "recovery.signal").touch()
                    took = Stopwatch()
                    copy.start()
                    with trio.fail_after(PATIENCE):
                        while ask(copy, "SELECT pg_is_in_recovery()") == "t":
                            await trio.lowlevel.checkpoint()
                    print(f"a server came back from its archive within {took}")
                    assert ask(copy, "SELECT count(*) FROM customers") == customers
                    assert ask(copy, "SELECT count(*) FROM money_in") == "1"
                    here.env["ATLAS__DATABASE__DSN"] = copy.dsn(DATABASE)
                    verified = await here.atlas("verify", "--whole", "--json")
                    assert verified.json["auditor"] == {**verified.json["auditor"], "holds": True, "findings": []}  # type: ignore[dict-item]


async def test_the_service_goes_on_with_the_standby_when_the_primary_is_lost(tmp_path: Path) -> None:
    with archived_server() as (primary, _), copied_server(primary, {"archive_mode": "off"}, "-R") as standby:
        standby.start()
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        dsn = f"postgresql://atlas@{hosts}/{DATABASE}?target_session_attrs=read-write"
        async with place(ATLAS__DATABASE__DSN=dsn) as here, origin() as site:
            await here.ok("init")
            async with here.running():
                link = await here.buy(42, "first")
                with trio.fail_after(PATIENCE):
                    while ask(standby, "SELECT count(*) FROM money_in") != "1":
                        await trio.lowlevel.checkpoint()
                assert primary.process is not None
                primary.process.send_signal(signal.SIGKILL)
                primary.process.wait()
                async with client(here, link) as proxy:
                    await here.until_fetched(proxy, site.port)  # customers notice nothing meanwhile
                took = Stopwatch()
                assert ask(standby, "SELECT pg_promote()") == "t"
                with trio.fail_after(PATIENCE):
                    while (await here.atlas("customer", "add", "43")).status:
                        pass
                print(f"money could be booked again {took} after the promotion began")
                await here.ok("buy", "--customer", "43", "--charge", "second", *BUY)
                await here.link(43)
                assert (await here.ok("verify", "--whole", "--json")).json["holds"] is True
