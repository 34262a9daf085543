"""Who runs this command: the personal token in the environment, and the operator that it or the unix user stands for."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from runtime.exit_codes import NO_PERMISSION, USAGE

if TYPE_CHECKING:
    from runtime.operators.identity import Identity

TOKEN: Final = "ATLAS_OPERATOR_TOKEN"  # noqa: S105  # the variable's name
TOKEN_FILE: Final = "ATLAS_OPERATOR_TOKEN_FILE"  # noqa: S105  # as above
_LONGEST: Final = 1024
_ACTING: Final = "runtime.operator"


def operator_token(env: Mapping[str, str]) -> str | None:
    """The personal token out of `ATLAS_OPERATOR_TOKEN`, or out of the file that `ATLAS_OPERATOR_TOKEN_FILE` names.

    None if neither is set. Raises an AtlasError when both are (64), and when the file cannot be read, is open to others
    (77) or holds no token (64).
    """
    text, file = env.get(TOKEN), env.get(TOKEN_FILE)
    if text is None and file is None:
        return None
    from runtime.errors import AtlasError  # keeps `atlas --help` fast

    def refused(why: str, code: int) -> AtlasError:
        error = AtlasError(why)
        error.exit_code = code  # type: ignore[misc]  # one error, several codes: the class only holds the default
        return error

    if text is not None and file is not None:
        raise refused(f"{TOKEN} and {TOKEN_FILE} are both set: which operator is meant? Unset one of them", USAGE)
    where = TOKEN
    if file is not None:
        where = f"{TOKEN_FILE}={file}"
        try:
            with Path(file).expanduser().open("rb") as opened:
                mode = os.fstat(opened.fileno()).st_mode
                text = opened.read(_LONGEST + 1).decode("ascii")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise refused(f"the operator's token cannot be read ({why}): {where}", NO_PERMISSION) from error
        if stat.S_IMODE(mode) & 0o077:
            raise refused(
                f"the operator's token is open to others: {where} has mode {stat.S_IMODE(mode):04o}; chmod 600",
                NO_PERMISSION,
            )
    assert text is not None, "one of the two is set"
    token = text.strip()
    if not token or len(token) > _LONGEST or not token.isascii() or not token.isprintable():
        raise refused(f"{where} holds no operator's token: it is one line of 1 to {_LONGEST} characters", USAGE)
    return token


def acting_operator(ctx: click.Context) -> Identity:
    """Who runs this command: the holder of the token that is given, else the operator of this unix user.

    Asked twice, it is answered once. Raises NotAllowed (exit code 77) when it is nobody whom `[operators]` declares, and
    what `operator_token` and `load_sections` raise.
    """
    known = ctx.meta.get(_ACTING)
    if known is None:
        from runtime.cli.options import load_sections  # options.py reads the token from here
        from runtime.operators.identity import Operators  # keeps `atlas --help` fast

        known = Operators(load_sections(ctx).operators).identify(os.getuid(), operator_token(os.environ))
        ctx.meta[_ACTING] = known
    found: Identity = known
    return found


def command_words(ctx: click.Context) -> str:
    """The words that call this command, as the list of least roles has them: `withdrawals approve`."""
    words: list[str] = []
    at: click.Context | None = ctx
    while at is not None and at.parent is not None:
        words.append(at.info_name or "")
        at = at.parent
    return " ".join(reversed(words))
