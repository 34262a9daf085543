"""The process that is Xray: `python -m vpn.xray.shim`.

Reads an eight-byte big-endian length and that many bytes of JSON configuration from standard input, then runs Xray in
this process until it ends. The pipe stays open: its end means that the parent is gone, and this process then ends at
once. Xray itself ends the process with status 23 for a refused configuration and 255 for a port it cannot take, both
without a message; truncated input ends it with 64.
"""

from __future__ import annotations

import os
import struct
import sys
import threading

LENGTH = struct.Struct(">Q")


def read_exactly(descriptor: int, size: int) -> bytes:
    """Exactly `size` bytes, or SystemExit(64) if the input ends before."""
    parts = bytearray()
    while len(parts) < size:
        part = os.read(descriptor, min(size - len(parts), 1 << 20))
        if not part:
            raise SystemExit(64)
        parts += part
    return bytes(parts)


def die_with_parent(descriptor: int) -> None:
    """Wait for the end of the pipe, then end this process without any clean-up."""
    while os.read(descriptor, 4096):
        pass
    os._exit(0)


def main() -> None:
    """Run Xray until it ends or the parent does."""
    stdin = sys.stdin.fileno()
    (size,) = LENGTH.unpack(read_exactly(stdin, LENGTH.size))
    config = read_exactly(stdin, size).decode()
    threading.Thread(target=die_with_parent, args=(stdin,), daemon=True).start()
    import xray  # after the watcher: loading it takes a while, and the parent may already be gone

    xray.startFromJSON(config)


if __name__ == "__main__":
    main()
