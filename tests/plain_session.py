"""A blocking session with a test's PostgreSQL, in the simple query protocol: to start a psql takes longer than most statements."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from types import TracebackType

_PROTOCOL = 3 << 16
_HEADER = struct.Struct("!cI")


class Refused(RuntimeError):
    """The server refused the session or a statement; the text is the server's own."""


class PlainSession:
    """One session of a user whom the server trusts. Not for use by several threads at once."""

    def __init__(self, socket_file: Path, user: str, database: str, **settings: str) -> None:
        """Connect. `settings` are session settings such as `jit="off"`. Raises OSError, or Refused with the server's text."""
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(socket_file))
            self._stream = self._socket.makefile("rb")
            words = {"user": user, "database": database, **settings}
            body = b"".join(f"{name}\0{value}\0".encode() for name, value in words.items()) + b"\0"
            self._socket.sendall(struct.pack("!II", len(body) + 8, _PROTOCOL) + body)
            self._answer()
        except BaseException:
            self._socket.close()
            raise

    def run(self, statements: str) -> str:
        """Run statements, in one transaction if they are several, and return all rows: a line each, columns joined by `|`.

        Raises Refused with the server's text, and OSError when the session was cut.
        """
        body = statements.encode() + b"\0"
        self._socket.sendall(_HEADER.pack(b"Q", len(body) + 4) + body)
        return "\n".join(self._answer())

    def close(self) -> None:
        """End the session; the server is told."""
        try:
            self._socket.sendall(_HEADER.pack(b"X", 4))
        except OSError:  # it was cut
            pass
        self._stream.close()
        self._socket.close()

    def __enter__(self) -> PlainSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _answer(self) -> list[str]:
        """The rows up to where the server is ready for the next query."""
        rows: list[str] = []
        refused = ""
        while True:
            kind, body = self._message()
            if kind == b"D":
                rows.append(_row(body))
            elif kind == b"E":
                fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
                refused = f"{fields.get(b'S', 'ERROR')}:  {fields.get(b'M', '')}"
                if fields.get(b"S") == "FATAL":  # the session has ended
                    raise Refused(refused)
            elif kind == b"Z":
                if refused:
                    raise Refused(refused)
                return rows

    def _message(self) -> tuple[bytes, bytes]:
        header = self._stream.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise ConnectionResetError("the server has cut the session")
        kind, length = _HEADER.unpack(header)
        return kind, self._stream.read(length - 4)


def _row(body: bytes) -> str:
    columns = []
    at = 2
    for _ in range(int.from_bytes(body[:2], "big")):
        (length,) = struct.unpack_from("!i", body, at)
        at += 4
        columns.append("" if length < 0 else body[at : at + length].decode())
        at += max(length, 0)
    return "|".join(columns)
