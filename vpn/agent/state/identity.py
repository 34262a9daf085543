"""What makes a node the same node after a restart: its ports and its REALITY keys. Links depend on them."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

import attrs

from vpn.agent.state import files
from vpn.agent.state.records import Damaged, decode_line, encode_line
from vpn.errors import StoreCorrupt, StoreUnreadable
from vpn.xray import x25519

_NAME: Final = "identity.json"


@attrs.frozen
class Identity:
    """Kept facts of a node; ports are 0 until they are chosen."""

    agent_id: str
    private_key: str = attrs.field(repr=False)
    public_key: str
    short_id: str
    inbound_port: int = 0
    listen_port: int = 0


def load_identity(directory: Path) -> Identity:
    """The node's identity; the first call makes one and writes it down. Raises StoreCorrupt or StoreUnreadable."""
    path = directory / _NAME
    content = files.read(path)
    if content is None:
        keys = x25519.generate()
        identity = Identity(secrets.token_hex(8), keys.private, keys.public, secrets.token_hex(4))
        save_identity(directory, identity)
        return identity
    try:
        return _read(content)
    except Damaged as error:
        raise StoreCorrupt(
            f"{path} is damaged: {error}. It holds the REALITY keys and the port that all links of this node name: "
            "restore it from a backup. Without one, move it away and start again; every customer then needs a new link"
        ) from error


def _read(content: bytes) -> Identity:
    if not content.endswith(b"\n"):
        raise Damaged("the file is cut short")
    data = decode_line(content[:-1])
    for field in attrs.fields(Identity):
        if not isinstance(data.get(field.name), int if field.name.endswith("_port") else str):
            raise Damaged(f"{field.name} is missing")
    return Identity(**data)  # type: ignore[arg-type]  # checked field by field above


def save_identity(directory: Path, identity: Identity) -> None:
    """Write the identity down, durably. Raises StoreUnreadable."""
    try:
        files.replace(directory / _NAME, encode_line(attrs.asdict(identity)))
    except OSError as error:
        raise StoreUnreadable(f"cannot write {directory / _NAME}: {error.strerror}; {files.remedy(error)}") from error
