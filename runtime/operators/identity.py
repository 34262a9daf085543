"""Who this is, and whether they may: asked by commands, by the control socket and by what serves front ends."""

from __future__ import annotations

import hashlib
import hmac
import pwd
from collections.abc import Mapping
from typing import ClassVar, Final, Literal

import attrs

from runtime.config.operators import OperatorSettings
from runtime.config.operators import Role as Role
from runtime.errors import AtlasError
from runtime.exit_codes import NO_PERMISSION
from runtime.redaction import one_line

Kind = Literal["operator", "front_end", "unknown"]
How = Literal["unix", "token", "telegram", "front_end"]
_WORDS: Final[Mapping[How, str]] = {
    "unix": "by unix user",
    "token": "by token",
    "telegram": "by Telegram id",
    "front_end": "for a customer",
}


@attrs.frozen
class Identity:
    """Somebody who asks for something."""

    kind: Kind
    """An operator, a front end that acts for a customer, or a stranger."""
    name: str
    """The operator's or the front end's name; of a stranger, the account or what else is known."""
    role: Role | None
    """None: no role, so that nothing that needs one is allowed."""
    how: How
    """By what they were recognised."""

    @property
    def actor(self) -> str:
        """What audit entries call them: `operator:anna`, `front_end:web`."""
        return f"{self.kind}:{self.name}"

    def __str__(self) -> str:
        role = "" if self.role is None else f", {self.role}"
        kind = "" if self.kind == "operator" else f"{self.kind.replace('_', ' ')} "
        return f"{kind}{self.name}{role}, {_WORDS[self.how]}"


class NotAllowed(AtlasError):
    """Somebody asked for what they may not do. Nothing was changed. `who` is whom the audit trail names."""

    exit_code: ClassVar[int] = NO_PERMISSION

    def __init__(self, who: Identity, text: str) -> None:
        super().__init__(text)
        self.who = who


def front_end(name: str) -> Identity:
    """The front end of this name, which acts for the customer whom its request is about."""
    return Identity("front_end", name, None, "front_end")


def demand(who: Identity, least: Role, what: str) -> None:
    """Raise NotAllowed unless this role may do `what`, which needs at least the role `least`."""
    if who.role is None:
        raise NotAllowed(who, f"{what} is for operators, and {who} is none")
    if not who.role.includes(least):
        raise NotAllowed(
            who,
            f"{who.name} may not: {what} needs the role {least} or more, and {who.name} has {who.role}; an owner changes "
            f"it by operators.{who.name}.role",
        )


@attrs.frozen
class Operators:
    """The operators whom the configuration declares.

    Without any, an account of this machine that reaches the system is its owner: the control socket and the embedded
    database are open to the account that runs them alone, and a database of one's own to who knows its connection string.
    """

    declared: Mapping[str, OperatorSettings] = attrs.field(factory=dict)

    def identify(self, uid: int, token: str | None = None) -> Identity:
        """Who runs under this unix user id, or who holds this token: a token that is given decides alone.

        Raises NotAllowed when it is nobody.
        """
        account = account_of(uid)
        if token is not None:
            return self._by_token(account, token)
        if not self.declared:
            return Identity("operator", account, Role.OWNER, "unix")
        for name, one in self.declared.items():
            if one.unix_user == account:
                return Identity("operator", name, one.role, "unix")
        raise NotAllowed(
            Identity("unknown", account, None, "unix"),
            f"the unix user {account} is no operator; the operators are {', '.join(self.declared)}. One of them sets "
            "ATLAS_OPERATOR_TOKEN_FILE (or ATLAS_OPERATOR_TOKEN) to the personal token, or an owner adds "
            f'operators.NAME.unix_user = "{account}"',
        )

    def by_telegram(self, telegram_id: int) -> Identity | None:
        """The operator with this Telegram id, if one is declared."""
        for name, one in self.declared.items():
            if one.telegram_id == telegram_id:
                return Identity("operator", name, one.role, "telegram")
        return None

    def with_role(self, least: Role) -> list[str]:
        """The names of those who may do what needs at least this role."""
        return [name for name, one in self.declared.items() if one.role.includes(least)]

    def _by_token(self, account: str, token: str) -> Identity:
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for name, one in self.declared.items():
            # Each is compared, whichever fits: the time that it takes says nothing about whose token is nearly right.
            if one.token_sha256 is not None and hmac.compare_digest(one.token_sha256.lower(), digest):
                found = Identity("operator", name, one.role, "token")
        if found is not None:
            return found
        why = "no operator has this token" if self.declared else "a token was given, and no [operators] are declared"
        raise NotAllowed(
            Identity("unknown", account, None, "token"),
            f"{why}; ATLAS_OPERATOR_TOKEN or ATLAS_OPERATOR_TOKEN_FILE gave it, and operators.NAME.token_sha256 is what it "
            "is compared with (`atlas operators add` makes a new one)",
        )


def account_of(uid: int) -> str:
    """The name of the account with this number, or the number where it has none."""
    try:
        return one_line(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return str(uid)
