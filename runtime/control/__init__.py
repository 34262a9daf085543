"""The operators' way into a running system: one JSON object a line over a unix socket of mode 0600.

Promises: it works while any actor is wedged; a client can cost nothing but its own connection.
Entry points: `control_command` (a room adds a command), `client.call` and `client.stream` (the command line's end),
`server.ControlServer`.
"""

from runtime.control.client import call
from runtime.control.command import ControlCall, NoArguments, Operator, control_command
from runtime.control.protocol import UNAVAILABLE, USAGE, ControlError, encode
from runtime.control.runtime_commands import as_item

__all__ = [
    "UNAVAILABLE",
    "USAGE",
    "ControlCall",
    "ControlError",
    "NoArguments",
    "Operator",
    "as_item",
    "call",
    "control_command",
    "encode",
]
