"""What `atlas doctor` finds: the findings, and those about the machine and the running system."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs
import click

from runtime.cli.options import call_control, load_startable

if TYPE_CHECKING:
    from runtime.config.config import Config

Verdict = Literal["well", "look", "wrong", "off"]

LEAST_FREE: Final = 1_000_000_000
"""Bytes that the disk of the data must have left; below, PostgreSQL is about to stop."""
LEAST_FILES: Final = 1024
"""Open files that the process must be allowed."""
_PIN: Final = re.compile(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)\Z")
_TIME_ERROR: Final = 5
"""What `adjtimex` returns of a clock that nothing disciplines."""
_TIMEX_BYTES: Final = 512


@attrs.frozen
class Finding:
    """One thing that was looked at."""

    about: str
    verdict: Verdict
    """well; look: it may hurt later; wrong: it hurts, or will stop the service; off: not in use, or could not be looked at."""
    what: str
    mend: str = ""
    """What to do about it."""


def of_python() -> Iterator[Finding]:
    """The interpreter, and the packages that must be of one version exactly."""
    version = platform.python_version()
    yield Finding("python", "well", f"{version} on {platform.system()} {platform.release()}")
    pins = [match for text in importlib.metadata.requires("atlas") or () if (match := _PIN.match(text)) is not None]
    others = [(pin[1], pin[2], found) for pin in pins if (found := _version(pin[1])) != pin[2]]
    for name, wanted, found in others:
        what = f"{name} is {found}, and {wanted} is needed exactly"
        yield Finding("packages", "wrong", what, f"pip install {name}=={wanted}")
    if not others:
        yield Finding("packages", "well", f"atlas {_version('atlas')} with what it needs")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not there"


def of_configuration(ctx: click.Context) -> tuple[list[Finding], Config | None]:
    """What is wrong with the configuration, as `atlas check` says it, and the configuration if nothing is."""
    from runtime.errors import ConfigError  # keeps `atlas --help` fast

    try:
        config = load_startable(ctx)
    except ConfigError as error:
        lines = str(error).splitlines()
        return [
            Finding("configuration", "wrong", line, "mend the file; `atlas check` repeats this") for line in lines
        ], None
    found = [Finding("configuration", "well", str(config.path))]
    found += [Finding("configuration", "look", warning, "see what the line says") for warning in config.warnings]
    return found, config


def of_machine(config: Config) -> Iterator[Finding]:
    """Disk, limits and clock."""
    yield from _disk(config.data_dir)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < LEAST_FILES:
        what = f"the process may open {soft} files ({hard} at most), and {LEAST_FILES} are needed"
        yield Finding("open files", "wrong", what, "raise it: LimitNOFILE= of the unit, or `ulimit -n 4096`")
    else:
        yield Finding("open files", "well", f"up to {soft}")
    disciplined = _clock_is_disciplined()
    if disciplined is None:
        yield Finding("clock", "off", "the kernel does not say whether anything keeps it right")
    elif disciplined:
        yield Finding("clock", "well", "kept right, says the kernel")
    else:
        what = "nothing keeps it right, says the kernel: signatures and ends of access go by it"
        yield Finding("clock", "look", what, "start chrony or systemd-timesyncd")


def _disk(directory: Path) -> Iterator[Finding]:
    at = directory
    while not at.exists() and at != at.parent:
        at = at.parent
    if not os.access(at, os.W_OK | os.X_OK):
        what = f"{directory} cannot be written by user {os.getuid()}"
        yield Finding("data", "wrong", what, f"chown {at} to the account that runs atlas, or set embedded.data_dir")
        return
    left = shutil.disk_usage(at)
    free = f"{left.free / 10**9:.1f} GB of {left.total / 10**9:.1f} GB are free at {directory}"
    if left.free < LEAST_FREE:
        yield Finding("disk", "wrong", free, "make room: a full disk stops PostgreSQL, and with it everything")
    elif left.free < left.total / 20:
        yield Finding("disk", "look", free, "make room before it is full")
    else:
        yield Finding("disk", "well", free)


def _clock_is_disciplined() -> bool | None:
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def of_system(ctx: click.Context) -> tuple[list[Finding], bool]:
    """What the running system says needs a human; and whether one runs."""
    from runtime.control.client import ControlUnreachable  # as above
    from runtime.errors import AtlasError  # as above
    from runtime.wording import duration  # as above

    try:
        found: Any = call_control(ctx, "status")
    except ControlUnreachable:
        return [Finding("system", "off", "it does not run", "atlas run")], False
    except AtlasError as error:
        return [Finding("system", "wrong", str(error), "read its log; `atlas status` asks again")], True
    lines = [
        Finding(
            one["name"],
            "wrong",
            f"{one['word']} for {duration(one['seconds'])}: {one['why']}",
            f"atlas inspect {one['name']}",
        )
        for one in found["attention"]
    ]
    state = f"{found['state']}, pid {found['pid']}, for {duration(found['uptime'])}, {len(found['children'])} children"
    return lines or [Finding("system", "well", state)], True
