"""What of an installation is in its backup, and how the restored configuration names its database."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from actors.backup.contents import DATA, INSTALLATION, OUTSIDE, collect, not_inside
from actors.backup.database import without_password
from actors.backup.errors import BackupFailed
from actors.backup.restoring import with_database
from actors.commands.init import new_configuration, shipped_configuration


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    for folder in ("secrets", ".atlas/node/local"):
        (home / folder).mkdir(parents=True)
    (home / "supervisor.toml").write_text(
        '[admin]\nsession_key_file = "secrets/key"\n[nodes]\nparis = { token_file = "../paris.token", port = 1 }\n'
    )
    for name in ("secrets/key", "secrets/operator.anna", ".atlas/payout.key", ".atlas/node/local/identity.json"):
        (home / name).write_text(name)
    (home / ".atlas/node/local/keys.snapshot").write_text("not kept")
    (tmp_path / "paris.token").write_text("t")
    return home


def kept(home: Path, env: dict[str, str] | None = None, *more: Path) -> dict[tuple[str, str], str]:
    data = home / ".atlas"
    found = collect(home / "supervisor.toml", data, data / "payout.key", env or {}, more)
    assert found[0].path == "supervisor.toml"
    return {(one.place, one.path): one.setting for one in found[1:]}


def test_every_file_that_a_setting_names_and_what_makes_a_node_the_same_is_kept(installation: Path) -> None:
    more = installation.parent / "more"
    more.write_text("m")
    assert kept(installation, {"ATLAS__TELEGRAM__TOKEN_FILE": str(more)}, more) == {
        (INSTALLATION, "secrets/key"): "admin.session_key_file",
        (INSTALLATION, "secrets/operator.anna"): "",
        (OUTSIDE, str(installation.parent / "paris.token")): "nodes.paris.token_file",
        (OUTSIDE, str(more)): "ATLAS__TELEGRAM__TOKEN_FILE",
        (DATA, "payout.key"): "withdrawals.key_file",
        (DATA, "node/local/identity.json"): "",
    }


def test_a_named_file_that_cannot_be_read_fails_the_backup(installation: Path) -> None:
    (installation.parent / "paris.token").unlink()
    with pytest.raises(BackupFailed, match=r"nodes\.paris\.token_file names, cannot be read: No such file"):
        kept(installation)


def test_what_only_the_environment_says_is_named_without_its_value() -> None:
    env = {"ATLAS__DATABASE__DSN": "secret", "ATLAS__X__Y_FILE": "f", "CREDENTIALS_DIRECTORY": "/run/x", "HOME": "/"}
    assert not_inside(env) == ["ATLAS__DATABASE__DSN", "CREDENTIALS_DIRECTORY"]


def dsn_file_of(text: str) -> object:
    return tomllib.loads(text)["database"].get("dsn_file")


@pytest.mark.parametrize("text", [shipped_configuration(), new_configuration("anna", "anna", "token", has_dsn=True)])
def test_a_restored_configuration_names_its_own_database_and_keeps_the_rest(text: str) -> None:
    before = tomllib.loads(text)
    own = with_database(text, "secrets/database.dsn")
    assert dsn_file_of(own) == "secrets/database.dsn"
    assert dsn_file_of(with_database(own, None)) is None
    for changed in (own, with_database(own, None)):
        assert {**tomllib.loads(changed), "database": {}} == {**before, "database": {}}
    assert with_database("[pool]\nsize = 3\n", None) == "[pool]\nsize = 3\n"
    assert dsn_file_of(with_database("[pool]\nsize = 3", "x")) == "x"


@pytest.mark.parametrize(
    ("dsn", "shown", "password"),
    [
        ("postgresql://u:p%40ss@h:1/d?sslmode=require", "postgresql://u@h:1/d?sslmode=require", "p@ss"),
        ("postgresql://u@/d?host=/run/a&password=q", "postgresql://u@/d?host=/run/a", "q"),
        ("postgresql://u:p@h1:1,h2:2/d?target_session_attrs=primary",) * 1
        + ("postgresql://u@h1:1,h2:2/d?target_session_attrs=primary", "p"),
        ("postgresql://h/d", "postgresql://h/d", None),
    ],
)
def test_no_password_stands_on_a_command_line(dsn: str, shown: str, password: str | None) -> None:
    assert without_password(dsn) == (shown, {} if password is None else {"PGPASSWORD": password})
