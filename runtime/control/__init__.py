"""The operators' way into a running system: one JSON object a line over a unix socket of mode 0600.

Promises: it works while any actor is wedged; a client can cost nothing but its own connection.
Entry points: `control_command` (a room adds a command), `client.call` and `client.stream` (the command line's end),
`server.ControlServer`.
"""

from runtime.public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
