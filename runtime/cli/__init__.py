"""The command line `atlas`.

Promises: `--help` imports no command; every error is one line and an exit code of sysexits.
Entry points: `main` (the process), and for the rooms' commands: the options, the parameter types, `emit` and `table`.
"""

import os
import signal

from runtime.public_names import public_names

if os.getpid() == 1:
    # A signal without a handler is lost on PID 1, but not one that is blocked. So a TERM that comes while the rest is
    # imported waits for `become_init`.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
