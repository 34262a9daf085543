"""Name a line of code the way a person looks for it, without the machine's own paths."""

from __future__ import annotations

import sys
from pathlib import PurePath
from types import FrameType

_DEPTH = 2
"""Path parts that identify a file of ours: its room and its name."""


def site_of(frame: FrameType | None) -> str:
    """`actors/activation.py:120 in ActivationWorker.claim`; "an unknown line" without a frame."""
    if frame is None:
        return "an unknown line"
    path = "/".join(PurePath(frame.f_code.co_filename).parts[-_DEPTH:])
    return f"{path}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def caller(depth: int = 1) -> FrameType | None:
    """The frame `depth` calls above the function that asks; cheap, and formatted only when somebody wants to read it."""
    return sys._getframe(depth + 1)
