"""Name a line of code the way a person looks for it, without the machine's own paths."""

from __future__ import annotations

import sys
from pathlib import PurePath
from types import CodeType, FrameType

_DEPTH = 2
"""Path parts that identify a file of ours: its room and its name."""


def site_at(code: CodeType | None, line: int) -> str:
    """`actors/activation.py:120 in ActivationWorker.claim`; "an unknown line" without a code object."""
    if code is None:
        return "an unknown line"
    path = "/".join(PurePath(code.co_filename).parts[-_DEPTH:])
    return f"{path}:{line} in {code.co_qualname}"


def site_of(frame: FrameType | None) -> str:
    """The line at which a frame stands, named as by `site_at`."""
    return "an unknown line" if frame is None else site_at(frame.f_code, frame.f_lineno)


def caller(depth: int = 1) -> FrameType | None:
    """The frame `depth` calls above the function that asks; cheap, and formatted only when somebody wants to read it."""
    return sys._getframe(depth + 1)
