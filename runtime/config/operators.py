"""`[operators.<name>]`: the people who may operate this installation, and how each of them is recognised."""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Mapping

import attrs
from attrs.validators import optional

from runtime.config.config_file import RawConfig
from runtime.config.section import settings

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_UNIX_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")
_OF_NOTHING = frozenset(hashlib.sha256(text).hexdigest() for text in (b"", b"\n"))
"""What `sha256sum` prints when no token reached it: an operator who would be anybody."""


class Role(enum.StrEnum):
    """What an operator may do. Each role includes those before it: viewer, support, money, owner."""

    VIEWER = "viewer"
    """Looks at the system, and at no customer."""
    SUPPORT = "support"
    """Looks at customers and helps them; restarts actors."""
    MONEY = "money"
    """Grants, refunds, pays out; sees where withdrawals go."""
    OWNER = "owner"
    """Everything: stops the system, changes its schema and its pools."""

    def includes(self, least: Role) -> bool:
        """Whether this role may do what needs at least the role `least`."""
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(least)


def _is_digest(_: object, __: object, text: str) -> None:
    if not _DIGEST.fullmatch(text):
        raise ValueError(
            "must be the SHA-256 of a token as 64 hexadecimal digits (`atlas operators add` makes both), got "
            f"{len(text)} characters"  # not the text: it may be the token itself
        )
    if text.lower() in _OF_NOTHING:
        raise ValueError("is the SHA-256 of an empty text; `atlas operators add` makes a token and its digest")


def _is_unix_name(_: object, __: object, text: str) -> None:
    if not _UNIX_NAME.fullmatch(text):
        raise ValueError(f"must be the name of an account of this machine, got {text[:40]!r}")


def _is_telegram_id(_: object, __: object, number: int) -> None:
    if not 1 <= number <= 2**63 - 1:
        raise ValueError(f"must be a person's Telegram id, a positive number, got {number}")


@settings("operators", keyed=True)
@attrs.frozen
class OperatorSettings:
    """`[operators.<name>]`: one person. At least one of the three ways to recognise them is needed."""

    role: Role
    """viewer, support, money or owner; each may do what those before it may."""
    token_sha256: str | None = attrs.field(default=None, validator=optional(_is_digest), repr=False)
    """The SHA-256 of this person's token, 64 hexadecimal digits. The token itself is never written down here."""
    unix_user: str | None = attrs.field(default=None, validator=optional(_is_unix_name))
    """The account under which this person's commands run on this machine."""
    telegram_id: int | None = attrs.field(default=None, validator=optional(_is_telegram_id))
    """This person's Telegram id."""


def check_operators(source: RawConfig, operators: Mapping[str, OperatorSettings]) -> None:
    """Blame what is wrong between entries: nobody, nothing to recognise somebody by, two people who look the same."""
    if "operators" in source.data and not source.table(("operators",)):
        source.blame(
            ("operators",),
            "declares nobody; without this table whoever may use the database and the control socket is the owner",
        )
    seen: dict[tuple[str, object], str] = {}
    for name, one in operators.items():
        digest = None if one.token_sha256 is None else one.token_sha256.lower()
        ways = {"token_sha256": digest, "unix_user": one.unix_user, "telegram_id": one.telegram_id}
        if all(value is None for value in ways.values()):
            source.blame(("operators", name), f"nothing recognises this operator: set one of {', '.join(ways)}")
        for key, value in ways.items():
            if value is None:
                continue
            is_taken_by = seen.setdefault((key, value), name)
            if is_taken_by != name:
                source.blame(
                    ("operators", name, key), f"is {is_taken_by}'s as well; two operators must be told apart by it"
                )
    if operators and not any(one.role is Role.OWNER for one in operators.values()):
        source.warnings.append(
            f"{source.place(('operators',))}: no operator is an owner: no one may stop the system or change its schema"
        )
