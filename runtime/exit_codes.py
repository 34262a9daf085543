"""The exit codes of every command and of the process (sysexits)."""

from __future__ import annotations

from typing import Final

OK: Final = 0
ATTENTION: Final = 1
"""Of a command that looks (`status`, `doctor`): what it saw needs a human. Of `run`: wedged while code held the interpreter."""
USAGE: Final = 64
"""The command line itself is wrong."""
GAVE_UP: Final = 69
"""What is needed is not available: the supervisor gave up, another instance runs, the socket does not answer."""
WEDGED: Final = 70
"""Stuck beyond repair, or a failure inside."""
OUTPUT: Final = 74
"""Stdout took no more of what a command had to say: a full disk, mostly."""
UNSTOPPED: Final = 75
"""Something did not end although it was cancelled; the process left all the same. Of a command: try again later."""
NO_PERMISSION: Final = 77
"""A file or directory may not be read or written."""
CONFIG: Final = 78
"""The configuration is wrong."""
INTERRUPTED: Final = 130
"""Ctrl-C in a command other than `run`."""
