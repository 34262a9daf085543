"""Run a command under the restrictions of a systemd unit, without systemd.

    python -m tests.vpn.agent.install.restricted UNIT COMMAND…

Takes over what could keep an agent from cutting connections: the system calls it may make, its capabilities, no new
privileges. For x86-64 only.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
ANALYZE = shutil.which("systemd-analyze") or ""
ARCHITECTURE = 0xC000003E
EPERM = 1
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 24, 38, 22, 2
CAPABILITIES = {"CAP_NET_BIND_SERVICE": 10}


def directive(unit: str, name: str) -> list[str]:
    """The words of a directive."""
    found = re.search(rf"^{name}=(.*)$", unit, re.MULTILINE)
    assert found, name
    return found[1].split()


def members(name: str) -> set[str]:
    """The system calls of a set, or the one of that name."""
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run([ANALYZE, "syscall-filter", name], check=True, capture_output=True, text=True).stdout
    words = [line.strip() for line in listed.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return set[str]().union(*(members(word) for word in words))


def program(names: set[str]) -> bytes:
    """The filter that allows these and refuses the others with EPERM."""
    numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", HEADER.read_text()))
    allowed = sorted(int(numbers[name]) for name in names if name in numbers)
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, ARCHITECTURE), (RETURN, 0, 0, ERRNO | EPERM), (LOAD, 0, 0, 0)]
    for number in allowed:
        code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    code.append((RETURN, 0, 0, ERRNO | EPERM))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def main() -> None:
    """Restrict this process and become the command."""
    unit = Path(sys.argv[1]).read_text()
    libc = ctypes.CDLL(None, use_errno=True)
    kept = {CAPABILITIES[name] for name in directive(unit, "CapabilityBoundingSet")}
    for capability in set(range(41)) - kept:
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    assert directive(unit, "NoNewPrivileges") == ["yes"]
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    code = program(set[str]().union(*(members(name) for name in directive(unit, "SystemCallFilter"))))
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(header, len(header)), 0, 0):
        raise OSError(ctypes.get_errno(), "the filter was refused")
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  # that is the point


if __name__ == "__main__":
    main()
