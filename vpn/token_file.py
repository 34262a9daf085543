"""The file with the bearer token of a node's agent: the agent and the commands that ask it read the same one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from runtime.config import Secret
from vpn.errors import AgentMisconfigured

MIN_TOKEN: Final = 16
"Characters that a token has at least."


def read_token(path: Path) -> Secret:
    """The bearer token in this file, without the space around it.

    Raises AgentMisconfigured if the file is missing, unreadable or not text, or if the token is shorter than MIN_TOKEN or
    has characters that cannot stand in a header; the message says how to make one.
    """
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise AgentMisconfigured(
            f"cannot read the token file {path}: {error.strerror}; make one with: "
            f"(umask 077; head -c 32 /dev/urandom | base64 > {path})"
        ) from error
    except UnicodeDecodeError as error:
        raise AgentMisconfigured(f"the token file {path} is not text") from error
    if not (len(token) >= MIN_TOKEN and token.isascii() and token.isprintable() and " " not in token):
        raise AgentMisconfigured(f"the token in {path} needs at least {MIN_TOKEN} characters, without spaces")
    return Secret(token)
