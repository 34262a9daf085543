"""`atlas operators …`: make a token for somebody, list who is declared, say who one is oneself."""

from __future__ import annotations

import hashlib
import re
import secrets

import click

from runtime.cli.operators import acting_operator
from runtime.cli.options import Word, config_option, json_option, load_config
from runtime.cli.output import emit, table

_NAME = Word(
    re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"), "an operator's name: letters, digits, - and _, such as anna"
)
_UNIX_USER = Word(re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}"), "the name of an account of this machine")
_ROLES = ("viewer", "support", "money", "owner")


@click.group()
def operators() -> None:
    """Declare operators, list them, and say which one runs a command."""


@operators.command()
@click.argument("name", type=_NAME)
@click.option("--role", type=click.Choice(_ROLES), required=True, help="Each may do what those before it may.")
@click.option("--unix-user", type=_UNIX_USER, help="Also recognise the person by this account of this machine.")
@click.option("--telegram-id", type=click.IntRange(1, 2**63 - 1), help="The person's Telegram id.")
@json_option
def add(name: str, role: str, unix_user: str | None, telegram_id: int | None, *, as_json: bool) -> None:
    """Make a token for NAME, shown this once, and the table that declares them; no file is changed."""
    token = secrets.token_urlsafe(32)
    lines = [
        f"[operators.{name}]",
        f'role = "{role}"',
        f'token_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"',
    ]
    if unix_user is not None:
        lines.append(f'unix_user = "{unix_user}"')
    if telegram_id is not None:
        lines.append(f"telegram_id = {telegram_id}")
    declaration = "\n".join(lines)
    text = (
        f"{token}\n\n"
        f"Give this token to {name}: it is not kept and not shown again. In a file of mode 600, ATLAS_OPERATOR_TOKEN_FILE "
        "names it.\nThis goes into the configuration. Commands obey it at once, a running system from `atlas reload` on:\n\n"
        f"{declaration}"
    )
    emit({"name": name, "role": role, "token": token, "declaration": declaration}, as_json, lambda: text)


@operators.command("list")
@config_option
@json_option
@click.pass_context
def list_(ctx: click.Context, *, as_json: bool) -> None:
    """Who is declared, with which role, and by what they are recognised."""
    declared = load_config(ctx).operators
    found = [
        {
            "name": name,
            "role": one.role.value,
            "token": one.token_sha256 is not None,
            "unix_user": one.unix_user,
            "telegram_id": one.telegram_id,
        }
        for name, one in declared.items()
    ]
    rows = [
        (one["name"], one["role"], "token" if one["token"] else "", one["unix_user"] or "", one["telegram_id"] or "")
        for one in found
    ]
    nobody = "no operators are declared: whoever may use the database and the control socket is the owner"
    emit(found, as_json, lambda: table(("operator", "role", "token", "unix user", "Telegram id"), rows) or nobody)


@operators.command()
@config_option
@json_option
@click.pass_context
def whoami(ctx: click.Context, *, as_json: bool) -> None:
    """Which operator runs this command; 77 if it is nobody who is declared."""
    who = acting_operator(ctx)
    is_declared = bool(load_config(ctx).operators)
    data = {"name": who.name, "role": who.role, "how": who.how, "declared": is_declared}
    note = (
        "" if is_declared else "\nno [operators] are declared: whoever may use the database and the socket is the owner"
    )
    emit(data, as_json, lambda: f"operator {who}{note}")
