"""What the text of a statement says about its effect beyond its own transaction; each text is looked at once.

Two things matter to whoever lends connections: a statement that ends or begins a transaction, and one that changes the
session for the next holder. The text is what can be read without asking the server, which would cost each lease a
round trip. What a function of the database does inside itself is not seen: `DO` and `CALL` therefore count as changes.
"""

from __future__ import annotations

import enum
import re

from db.driver.bridge import DriverConnection
from db.errors import LeaseMisused


class Effect(enum.IntFlag):
    """What a statement does beside its work."""

    SESSION = 1
    """It changes the session: settings, temporary tables, LISTEN, session locks, prepared statements."""
    TRANSACTION = 2
    """It begins or ends a transaction."""


_MOST_KNOWN = 4096
_known: dict[str, Effect] = {}
look_up = _known.get
"""`look_up(text, True)` is false for a text that is known to have no such effect: all that a usual statement costs."""

_LITERALS = re.compile(
    r"""--[^\n]* | /\*.*?\*/ | \bE'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | \$(\w*)\$.*?\$\1\$""",
    re.DOTALL | re.VERBOSE | re.IGNORECASE,
)
_CONTROL = re.compile(
    r"(?:BEGIN|START|COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+(?:WORK\s+|TRANSACTION\s+)?TO\b))\b",
    re.IGNORECASE,
)
_SESSION = re.compile(
    r"(?:SET(?!\s+(?:LOCAL|TRANSACTION|CONSTRAINTS)\b)|RESET|LISTEN|UNLISTEN|PREPARE(?!\s+TRANSACTION)|DEALLOCATE|LOAD|"
    r"DISCARD|DO|CALL)\b",
    re.IGNORECASE,
)
_ANYWHERE = re.compile(
    r"\b(?:TEMP|TEMPORARY|pg_temp|WITH\s+HOLD|setseed|dblink_connect(?:_u)?|pg_(?:try_)?advisory_(?:un)?lock(?:_shared|_all)?)\b"
    r"|\bset_config\s*\((?![^()]*,\s*true\s*\))",
    re.IGNORECASE,
)
_BODY = re.compile(r"\bBEGIN\s+ATOMIC\b", re.IGNORECASE)


def effect_of(text: str) -> Effect:
    """What the statement, or the several of one text, do beside their work."""
    found = _known.get(text)
    if found is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        found = _known[text] = _read(text)
    return found


def _read(text: str) -> Effect:
    bare = _LITERALS.sub(" '' ", text).replace('"', "")
    effect = Effect(0)
    if _ANYWHERE.search(bare):
        effect |= Effect.SESSION
    # The statements of a function's body are its own.
    for part in [bare] if _BODY.search(bare) else bare.split(";"):
        statement = part.lstrip(" \t\r\n('")
        if _CONTROL.match(statement):
            effect |= Effect.TRANSACTION
        if _SESSION.match(statement):
            effect |= Effect.SESSION
    return effect


def note_effect(driver: DriverConnection, text: str, *, in_transaction: bool) -> None:
    """Remember that a statement about to be sent changes the session: it is reset before the next holder gets it.

    `in_transaction`: the statement belongs to a function whose caller begins and ends the transaction. One that does so
    itself raises LeaseMisused before it is sent, and the transaction does not commit, even if the function swallows that.
    """
    effect = effect_of(text)
    if effect & Effect.SESSION:
        driver.session_changed = True
    if in_transaction and effect & Effect.TRANSACTION:
        error = LeaseMisused(
            f'"{driver.label}" would have begun or ended its transaction by itself; commit and rollback belong to the caller: '
            "return, or raise; for a part of the work use a savepoint"
        )
        driver.needs_cleaning = True
        if driver.foreign_await is None:
            driver.foreign_await = error
        raise error
