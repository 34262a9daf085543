"""Logging that never blocks, and text made safe to show.

Promises: saying something appends to a bounded queue and returns; nothing that is written shows a secret or a control
character.
Entry points: `get_logger`; `start`, `reconfigure`, `flush` and `stop` for the owner of the process; `redact`.
May be imported by everything above the ground. Imports the ground alone.
"""

from runtime.public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
