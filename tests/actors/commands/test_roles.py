"""Each command has a least role in one list; who has less is refused with 77, audited, and changes nothing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import trio

from db.driver.session import open_session
from db.tx import Row, Tx
from runtime.cli import run_command_line
from runtime.operators import LEAST_ROLES, Role
from runtime.operators.identity import account_of
from runtime.operators.least_roles import least_role, least_role_of_call
from tests.actors.commands.conftest import Atlas, earn
from tests.actors.commands.test_hostile_input import ALL, GOOD, OF_THE_DATABASE, valued

ROOT = Path(__file__).parent.parent.parent.parent
ME = account_of(os.getuid())
TOKENS = {role.value: f"the-token-of-{role.value}" for role in Role}
PLACE = ("<!-- roles -->\n", "<!-- /roles -->")


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATLAS_OPERATOR_TOKEN", raising=False)
    monkeypatch.delenv("ATLAS_OPERATOR_TOKEN_FILE", raising=False)


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped configuration with one operator a role, named after it, each with a token."""
    text = (ROOT / "supervisor.toml").read_text()
    for role, token in TOKENS.items():
        digest = hashlib.sha256(token.encode()).hexdigest()
        text += f'\n[operators.{role}1]\nrole = "{role}"\ntoken_sha256 = "{digest}"\n'
    file = tmp_path / "supervisor.toml"
    file.write_text(text)
    monkeypatch.setenv("ATLAS_CONFIG", str(file))
    return file


def rows(dsn: str, query: str) -> list[Row]:
    async def ask() -> list[Row]:
        async with open_session(dsn, "test") as session:

            async def run(tx: Tx) -> list[Row]:
                return list(await tx.fetch(query))

            return await session.run("look", run)

    return trio.run(ask)


def words_of(path: tuple[str, ...]) -> list[str]:
    """A legal call of a command of the database."""
    options, arguments = [], []
    for one in valued(OF_THE_DATABASE[path]):
        if one.required:
            if one.param_type_name == "option":
                options += [one.opts[0], GOOD[str(one.name)]]
            else:
                arguments.append(GOOD[str(one.name)])
    return [*path, *options, *arguments]


def test_every_command_stands_in_the_list_and_nothing_else() -> None:
    listed = {name for name in LEAST_ROLES if not name.endswith(" --disarm")}
    assert {" ".join(path) for path in ALL} == listed


def test_a_command_that_no_list_knows_is_the_owners() -> None:
    assert least_role("withdrawals steal") is Role.OWNER
    assert least_role_of_call("run", {}) is Role.OWNER, "what needs no role on the command line is none of the socket's"
    assert least_role_of_call("pool", {"action": "explode"}) is Role.OWNER


def table() -> str:
    """The list as the reference page shows it."""
    lines = ["| role | commands |", "|---|---|"]
    for role in (None, *Role):
        names = ", ".join(f"`{name}`" for name, least in LEAST_ROLES.items() if least is role)
        lines.append(f"| {role or 'none: who may read the files'} | {names} |")
    return "\n".join(lines) + "\n"


def test_the_reference_shows_the_list() -> None:
    page = (ROOT / "docs" / "reference" / "operators.md").read_text()
    assert page.partition(PLACE[0])[2].partition(PLACE[1])[0] == table()


@pytest.mark.parametrize("path", OF_THE_DATABASE, ids=" ".join)
def test_a_role_below_the_least_is_refused_and_audited(
    path: tuple[str, ...],
    declared: Path,
    atlas: Atlas,
    database_dsn: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = " ".join(path)
    least = LEAST_ROLES[command]
    assert least is not None, "a command of the database needs a role"
    for role in Role:
        if role.includes(least):
            break
        monkeypatch.setenv("ATLAS_OPERATOR_TOKEN", TOKENS[role])
        said = atlas(*words_of(path), fails=77)
        assert f"{role}1 may not: `atlas {command}` needs the role {least} or more" in said
        [last] = rows(database_dsn, "SELECT actor, action, subject, role, how FROM audit ORDER BY id DESC LIMIT 1")
        assert tuple(last) == (f"operator:{role}1", "refused", command, role, "token")  # type: ignore[arg-type]
    monkeypatch.setenv("ATLAS_OPERATOR_TOKEN", TOKENS[least])
    assert run_command_line(words_of(path)) != 77
    untouched = rows(database_dsn, "SELECT count(*) AS n FROM customers")
    assert untouched[0]["n"] == (1 if path == ("customer", "add") else 0)


def test_every_entry_names_the_operator_the_role_and_how(
    declared: Path, atlas: Atlas, database_dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKENS["money"] + "\n")
    file.chmod(0o600)
    monkeypatch.setenv("ATLAS_OPERATOR_TOKEN_FILE", str(file))
    atlas("customer", "add", "42")
    atlas("grant", "42", "--tariff", "basic", "--days", "30", "--key", "g")
    atlas("adjust", "42", "70000", "--reason", "gift", "--key", "a")
    atlas("revoke", "42")
    found = rows(database_dsn, "SELECT DISTINCT actor, role, how FROM audit")
    assert [tuple(row) for row in found] == [("operator:money1", "money", "token")]  # type: ignore[arg-type]
    assert rows(database_dsn, "SELECT DISTINCT actor FROM entitlement_events")[0]["actor"] == "operator:money1"


def test_without_operators_the_unix_user_is_the_owner(atlas: Atlas, database_dsn: str) -> None:
    atlas("customer", "add", "42")
    atlas("customer", "vip", "42", "on")
    [entry] = rows(database_dsn, "SELECT actor, role, how FROM audit")
    assert tuple(entry) == (f"operator:{ME}", "owner", "unix")  # type: ignore[arg-type]
    assert f"operator {ME}, owner, by unix user" in atlas("operators", "whoami", text=True)
    assert "no [operators] are declared" in atlas("operators", "whoami", text=True)
    assert "none declared" in atlas("check", text=True)


def test_an_account_that_is_no_operator_is_refused_and_audited(declared: Path, atlas: Atlas, database_dsn: str) -> None:
    assert f"the unix user {ME} is no operator" in atlas("customer", "add", "42", fails=77)
    assert atlas("operators", "whoami", fails=77)
    [entry] = rows(database_dsn, "SELECT actor, action, subject, role, how FROM audit")
    assert tuple(entry) == (f"unknown:{ME}", "refused", "customer add", None, "unix")  # type: ignore[arg-type]


@pytest.mark.parametrize("token", ["guessed", "\udcff" * 3, "x" * 2000, "a b\tc", "", " ", "\n"])
def test_no_wrong_token_lets_in_or_is_repeated(
    token: str, declared: Path, atlas: Atlas, database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATLAS_OPERATOR_TOKEN", token)
    code = run_command_line(["customer", "add", "42"])
    assert code in (64, 77)
    assert rows(database_dsn, "SELECT count(*) AS n FROM customers")[0]["n"] == 0
    if token.strip():
        told = rows(database_dsn, "SELECT coalesce(string_agg(audit::text, ' '), '') AS t FROM audit")[0]["t"]
        assert token not in told


@pytest.mark.parametrize(
    ("content", "mode", "code", "said"),
    [
        (TOKENS["owner"], 0o644, 77, "is open to others"),
        ("", 0o600, 64, "holds no operator's token"),
        ("one\ntwo", 0o600, 64, "holds no operator's token"),
        ("Ω", 0o600, 77, "it is no text"),
        (None, 0o600, 77, "No such file"),
    ],
)
def test_a_bad_token_file_is_named(
    content: str | None,
    mode: int,
    code: int,
    said: str,
    declared: Path,
    atlas: Atlas,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    monkeypatch.setenv("ATLAS_OPERATOR_TOKEN_FILE", str(file))
    text = atlas("customer", "add", "42", fails=code)
    assert said in text
    assert str(file) in text
    monkeypatch.setenv("ATLAS_OPERATOR_TOKEN", TOKENS["owner"])
    assert "both set" in atlas("customer", "add", "42", fails=64)


def test_a_refusal_needs_no_database(declared: Path, atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATLAS_OPERATOR_TOKEN", TOKENS["viewer"])
    monkeypatch.setenv("ATLAS__DATABASE__DSN", "postgresql://nobody@127.0.0.1:1/nothing")
    assert "viewer1 may not" in atlas("customer", "add", "42", fails=77)


def test_who_pays_sees_the_destination_and_the_others_its_end(
    declared: Path, atlas: Atlas, database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATLAS_OPERATOR_TOKEN", TOKENS["owner"])
    atlas("customer", "add", "42")
    earn(atlas, 5_000_000)
    atlas("withdrawals", "request", "42", "2000000", "--to", "card 4111111111111234", "--key", "w")
    monkeypatch.setenv("ATLAS_OPERATOR_TOKEN", TOKENS["support"])
    for words in (("withdrawals", "list"), ("withdrawals", "show", "1")):
        seen = atlas(*words, text=True)
        assert "…1234" in seen
        assert "4111" not in seen
    assert atlas("withdrawals", "show", "1")["destination"] == "…1234"
    monkeypatch.setenv("ATLAS_OPERATOR_TOKEN", TOKENS["money"])
    seen = atlas("withdrawals", "show", "1", text=True)
    assert "to: card 4111111111111234" in seen
    assert "another operator confirms it before it is paid" in seen
    assert "referral reward" in seen, "where the money came from"
    [entry] = rows(database_dsn, "SELECT actor, role FROM audit WHERE action = 'destination_opened'")
    assert tuple(entry) == ("operator:money1", "money")  # type: ignore[arg-type]


def test_a_large_withdrawal_needs_two_people_and_an_own_word_is_none(
    declared: Path, atlas: Atlas, database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATLAS_OPERATOR_TOKEN", TOKENS["owner"])
    atlas("customer", "add", "42")
    earn(atlas, 5_000_000)
    atlas("withdrawals", "request", "42", "2000000", "--to", "card 4111111111111234", "--key", "w")
    assert "operator:owner1 asked for withdrawal 1: somebody else" in atlas("withdrawals", "confirm", "1", fails=65)
    monkeypatch.setenv("ATLAS_OPERATOR_TOKEN", TOKENS["money"])
    approve = ("withdrawals", "approve", "1", "--reference", "bank 7")
    assert "another operator than operator:money1" in atlas(*approve, fails=65)
    atlas("withdrawals", "confirm", "1")
    assert "one's own confirmation is none" in atlas(*approve, fails=65)
    monkeypatch.setenv("ATLAS_OPERATOR_TOKEN", TOKENS["owner"])
    done = atlas(*approve)
    assert (done["state"], done["settled_by"], done["confirmed_by"]) == ("paid", "operator:owner1", ["operator:money1"])
    assert done["sources"] == {"referral_reward": 5000000, "withdrawal_reserve": -2000000}


def test_destinations_from_before_are_sealed_by_a_command_that_may_be_repeated(
    atlas: Atlas, database_dsn: str, tmp_path: Path
) -> None:
    atlas("customer", "add", "42")
    earn(atlas, 5_000_000)
    for key in ("a", "b"):
        atlas("withdrawals", "request", "42", "60000", "--to", f"card 411111111111123{key}", "--key", key)
    clear = """
        WITH off AS MATERIALIZED (SELECT set_config('session_replication_role', 'replica', true))
        UPDATE withdrawals SET destination_sealed = NULL, sealed_with = NULL, destination_end = NULL,
            requisites = jsonb_build_object('destination', 'card 411111111111123' || idempotency_key)
        FROM off RETURNING 1
    """
    rows(database_dsn, clear)
    assert atlas("withdrawals", "seal")["sealed"] == 2
    assert atlas("withdrawals", "seal", text=True) == "no destination lies in clear\n"
    # Random digits say 4111 now and then: sealed bytes are looked through as bytes, and fractions of seconds left out.
    kept = r"""
        SELECT regexp_replace(string_agg((to_jsonb(w) - 'destination_sealed' - 'sealed_with')::text, ' '),
                              '\.\d+\+', '', 'g') AS t,
            bool_or(position('4111'::bytea IN destination_sealed) > 0) AS is_clear FROM withdrawals w
    """
    assert "4111" not in rows(database_dsn, kept)[0]["t"]
    assert rows(database_dsn, kept)[0]["is_clear"] is False
    assert "card 411111111111123b" in atlas("withdrawals", "show", "2", text=True)
    (tmp_path / "payout.key").rename(tmp_path / "elsewhere")
    assert "put the file back from the backup" in atlas("withdrawals", "show", "2", fails=78)
    assert "which" in atlas("withdrawals", "request", "42", "60000", "--to", "x", "--key", "c", fails=78)
    assert len(atlas("withdrawals", "list")) == 2


def test_a_new_token_is_what_its_declaration_recognises(
    atlas: Atlas, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = atlas("operators", "add", "anna", "--role", "support", "--unix-user", "anna", "--telegram-id", "7")
    file = tmp_path / "supervisor.toml"
    file.write_text((ROOT / "supervisor.toml").read_text() + "\n" + made["declaration"])
    monkeypatch.setenv("ATLAS_CONFIG", str(file))
    monkeypatch.setenv("ATLAS_OPERATOR_TOKEN", made["token"])
    assert atlas("operators", "whoami") == {"name": "anna", "role": "support", "how": "token", "declared": True}
    assert atlas("operators", "list") == [
        {"name": "anna", "role": "support", "token": True, "unix_user": "anna", "telegram_id": 7}
    ]
    assert made["token"] not in file.read_text()
