"""A DSN leads where we say that it leads, or is refused without any of it being printed."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from db.driver.address import DatabaseAddress
from db.driver.session import open_session
from db.errors import DatabaseUnreachable, DatabaseUnusable

SECRET = "hunter2"


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql:/u:{SECRET}@db/shop",
        f"postgresql:u:{SECRET}@db/shop",
        f"u:{SECRET}@db/shop",
        f"mysql://u:{SECRET}@db/shop",
        f"postgresql://u:a@{SECRET}@db/shop",
        f"postgresql://u:a/{SECRET}@db/shop",
        f"postgresql://u:12/{SECRET}@db/shop",
        f"postgresql://u:12?{SECRET}=x@db/shop",
        f"postgresql://u:12#{SECRET}@db/shop",
        f"postgresql://u:a{SECRET}",
        f"postgresql://u:{SECRET}@db:notaport/shop",
        f"postgresql://u:{SECRET}@db:99999/shop",
        f"postgresql://u:{SECRET}@[::1/shop",
        f"postgresql://u:{SECRET}@db/shop/{SECRET}",
        f"postgresql://u:{SECRET}@db/shop?{SECRET}",
        f"postgresql://u:{SECRET} @db/shop",
        f"host=db password={SECRET}",
    ],
)
async def test_an_unreadable_dsn_is_refused_and_no_part_of_it_repeated(dsn: str) -> None:
    with pytest.raises(DatabaseUnusable, match="%40") as caught:
        async with open_session(dsn, "atlas/test"):
            pass
    error: BaseException | None = caught.value
    assert caught.value.exit_code == 78
    while error is not None:  # what a traceback prints
        assert SECRET not in str(error)
        assert error.__suppress_context__ or error.__context__ is None
        error = error.__cause__


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:p%40%2Fq@db/shop", "database 'shop' on db"),
        ("postgres://u@db:6000/shop?sslmode=disable", "database 'shop' on db:6000"),
        ("postgresql://u@[::1]:6000/shop", "database 'shop' on [::1]:6000"),
        ("postgresql://u@one:5433,two:5434/shop", "database 'shop' on one:5433, two:5434"),
        ("postgresql://u@one,two:5434/shop", "database 'shop' on one, two:5434"),
        ("postgresql://u@/shop?host=one,two&port=5433,5434", "database 'shop' on one:5433, two:5434"),
        ("postgresql://u@/shop?host=/run/here&port=5433", "database 'shop' on /run/here"),
        ("postgresql://u@db/a%2Fb", "database 'a/b' on db"),
    ],
)
def test_the_driver_connects_where_we_say_that_it_does(dsn: str, shown: str) -> None:
    assert str(DatabaseAddress.parse(dsn)) == shown
    addresses, parameters, *_ = asyncpg.connect_utils._parse_connect_dsn_and_args(
        dsn=dsn,
        host=None,
        port=None,
        user=None,
        password=None,
        passfile=None,
        database=None,
        ssl=None,
        service=None,
        servicefile=None,
        direct_tls=None,
        server_settings=None,
        target_session_attrs=None,
        krbsrvname=None,
        gsslib=None,
    )
    assert f"database {parameters.database!r}" in shown
    for address in addresses:
        host, port = (address.rpartition("/.s.PGSQL.")[0], "") if isinstance(address, str) else address
        host = f"[{host}]" if ":" in host else host
        assert host in shown
        assert port in ("", 5432) or f"{host}:{port}" in shown


async def test_several_hosts_are_all_named_when_none_answers(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnreachable, match=f"on {tmp_path}, nowhere.invalid:5433"):
        async with open_session(f"postgresql://u@/x?host={tmp_path},nowhere.invalid&port=5432,5433", "t", within=30):
            pass


async def test_verify_full_without_an_authority_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    with pytest.raises(DatabaseUnusable, match=r"'shop' on db.*sslmode=verify-full.*sslrootcert="):
        async with open_session(f"postgresql://u:{SECRET}@db/shop?sslmode=verify-full", "atlas/test"):
            pass


async def test_a_missing_file_of_the_authority_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "authority.pem"
    with pytest.raises(DatabaseUnusable, match=rf"there is no file '{missing}' \(sslrootcert=") as caught:
        async with open_session(f"postgresql://u:{SECRET}@db/x?sslmode=verify-full&sslrootcert={missing}", "t"):
            pass
    assert SECRET not in str(caught.value)


async def test_the_first_of_several_hosts_that_takes_writes_is_used(empty_database_dsn: str, tmp_path: Path) -> None:
    dead_first = empty_database_dsn.replace("host=", f"host={tmp_path},").replace("port=5432", "port=5432,5432")
    async with open_session(f"{dead_first}&target_session_attrs=read-write", "atlas/test") as session:
        assert await session.statements.fetchval("SELECT NOT pg_is_in_recovery()")
