"""Name a line of code the way a person looks for it, without the machine's own paths."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable
from pathlib import Path, PurePath
from types import CodeType, FrameType

_ROOT = Path(__file__).parent.parent.parent
_ROOMS = tuple(f"{_ROOT / room}{os.sep}" for room in ("actors", "db", "runtime", "vpn"))
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")
_INSTALLED = ("site-packages", "dist-packages")
_DEPTH = 2
"""The last parts of a path that identify a file outside the four rooms."""


def site_at(code: CodeType | None, line: int) -> str:
    """`actors/keys/activation.py:120 in ActivationWorker.claim`; "an unknown line" without a code object."""
    if code is None:
        return "an unknown line"
    return f"{_shown(code.co_filename)}:{line} in {code.co_qualname}"


def _shown(path: str) -> str:
    if path.startswith(_ROOMS):
        return path.removeprefix(f"{_ROOT}{os.sep}")
    return "/".join(PurePath(path).parts[-_DEPTH:])


def site_of(frame: FrameType | None) -> str:
    """The line at which a frame stands, named as by `site_at`."""
    return "an unknown line" if frame is None else site_at(frame.f_code, frame.f_lineno)


def is_library(code: CodeType) -> bool:
    """Whether it is not our code: the standard library's, or of an installed package that is not this program."""
    path = code.co_filename
    if path.startswith(_ROOMS):
        return False
    return path.startswith((_STANDARD_LIBRARY, "<")) or any(folder in path for folder in _INSTALLED)


def sites(lines: Iterable[tuple[CodeType, int]]) -> list[str]:
    """Our own among these lines, named as by `site_at`; all of them if none is ours."""
    every = list(lines)
    ours = [(code, line) for code, line in every if not is_library(code)]
    return [site_at(code, line) for code, line in ours or every]
