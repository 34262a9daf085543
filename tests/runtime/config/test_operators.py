"""`[operators]`: what cannot be meant is an error of the configuration, with its line, and never shows a token."""

from __future__ import annotations

import hashlib

import pytest

from runtime.config.errors import ConfigErrors
from runtime.config.loader import load_text
from runtime.config.operators import Role

A, B = (hashlib.sha256(name).hexdigest() for name in (b"a-token", b"b-token"))


def refused(text: str) -> str:
    with pytest.raises(ConfigErrors) as raised:
        load_text(text)
    assert raised.value.exit_code == 78
    return "\n".join(str(problem) for problem in raised.value.problems)


def test_operators_are_read_with_their_roles() -> None:
    config = load_text(
        f'[operators.anna]\nrole = "money"\ntoken_sha256 = "{A}"\n'
        f'[operators.boris]\nrole = "owner"\nunix_user = "boris"\ntelegram_id = 42\n'
    )
    assert {name: one.role for name, one in config.operators.items()} == {"anna": Role.MONEY, "boris": Role.OWNER}
    assert config.warnings == ()
    assert A not in repr(config)


def test_without_the_table_nobody_is_declared() -> None:
    assert load_text("").operators == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[operators.a]\nrole = "king"\nunix_user = "a"', "role"),
        ('[operators.a]\nrole = "mony"\nunix_user = "a"', "money"),
        ('[operators.a]\nunix_user = "a"', "role"),
        (
            '[operators.a]\nrole = "owner"',
            "nothing recognises this operator: set one of token_sha256, unix_user, telegram_id",
        ),
        ('[operators.a]\nrole = "owner"\ntoken_sha256 = "abc"', "64 hexadecimal digits"),
        (f'[operators.a]\nrole = "owner"\ntoken_sha256 = "{"g" * 64}"', "64 hexadecimal digits"),
        (f'[operators.a]\nrole = "owner"\ntoken_sha256 = "{A}\\n"', "64 hexadecimal digits"),
        ('[operators.a]\nrole = "owner"\ntoken_sha256 = 7', "token_sha256"),
        (f'[operators.a]\nrole = "owner"\ntoken_sha256 = "{hashlib.sha256(b"").hexdigest()}"', "of an empty text"),
        ('[operators.a]\nrole = "owner"\ntelegram_id = 0', "positive number"),
        ('[operators.a]\nrole = "owner"\ntelegram_id = "7"', "telegram_id"),
        ('[operators.a]\nrole = "owner"\ntelegram_id = 9223372036854775808', "positive number"),
        ('[operators.a]\nrole = "owner"\nunix_user = ""', "account of this machine"),
        ('[operators.a]\nrole = "owner"\nunix_user = "a b"', "account of this machine"),
        ('[operators.a]\nrole = "owner"\nunix_user = "a"\ntoken = "x"', "token"),
        ('[operators."a b"]\nrole = "owner"\nunix_user = "a"', "a name has letters"),
        ("[operators]\na = 1", "expected a table"),
        ("operators = 1", "expected a table"),
        ("[operators]", "declares nobody"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, said: str) -> None:
    assert said in refused(text)


@pytest.mark.parametrize(
    ("key", "first", "second"),
    [
        ("token_sha256", f'"{A}"', f'"{A}"'),
        ("token_sha256", f'"{A}"', f'"{A.upper()}"'),
        ("unix_user", '"a"', '"a"'),
        ("telegram_id", "7", "7"),
    ],
)
def test_two_operators_who_look_the_same_are_refused_at_the_second(key: str, first: str, second: str) -> None:
    text = f'[operators.anna]\nrole = "owner"\n{key} = {first}\n[operators.boris]\nrole = "viewer"\n{key} = {second}\n'
    said = refused(text)
    assert f"operators.boris.{key}: is anna's as well" in said
    assert ":6: " in said, "the line of the second one"


def test_a_token_that_stands_where_its_digest_belongs_is_not_shown() -> None:
    assert "secret-token" not in refused('[operators.a]\nrole = "owner"\ntoken_sha256 = "secret-token"')


def test_no_owner_is_legal_and_unwise() -> None:
    [warning] = load_text('[operators.a]\nrole = "viewer"\nunix_user = "a"').warnings
    assert "no operator is an owner" in warning
