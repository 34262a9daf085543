"""Which process this is, so that another one on the same machine can tell whether it still lives."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
_ENDED = frozenset("ZX")


@attrs.frozen
class ProcessIdentity:
    """One process among all that ever ran anywhere: a pid alone is used again, also in another container."""

    boot_id: str
    """Of the kernel that it runs on."""
    namespace: str
    """The pid namespace in which `pid` counts."""
    pid: int
    started: int
    """When it started, in ticks since that kernel did."""

    @classmethod
    def own(cls) -> ProcessIdentity:
        """This process."""
        state = _state_of(os.getpid())
        assert state is not None, "a process finds itself in /proc"
        return cls(_boot_id(), _namespace(), os.getpid(), state[1])

    @classmethod
    def parse(cls, text: str) -> ProcessIdentity | None:
        """Read what `str` wrote; None if it is something else."""
        parts = text.split("/")
        if len(parts) != 4 or not (parts[2].isdecimal() and parts[3].isdecimal()):
            return None
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]))

    def __str__(self) -> str:
        return f"{self.boot_id}/{self.namespace}/{self.pid}/{self.started}"

    def has_ended(self) -> bool:
        """Whether it has provably ended. `False` means that it lives, or that it cannot be known from here: it ran on another
        machine, before a reboot, or in another container."""
        if (self.boot_id, self.namespace) != (_boot_id(), _namespace()):
            return False
        state = _state_of(self.pid)
        if state is not None:
            return state[0] in _ENDED or state[1] != self.started
        # /proc may be mounted so that other users' processes are hidden; a signal tells a hidden one from none.
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    def lives_here(self) -> bool:
        """Whether it provably lives, on this machine."""
        if (self.boot_id, self.namespace) != (_boot_id(), _namespace()):
            return False
        return not self.has_ended()


def _state_of(pid: int) -> tuple[str, int] | None:
    """The process's state letter and start time, or None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in brackets, and may contain anything.
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _boot_id() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()


def _namespace() -> str:
    return _NAMESPACE.readlink().name
