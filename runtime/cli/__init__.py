"""The command line `atlas`.

Promises: `--help` imports no command; every error is one line and an exit code of sysexits.
Entry points: `main` (the process), and for the rooms' commands: the options, the parameter types, `emit` and `table`.
"""

from runtime.public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
