"""The desk: pages about a running system for its operators, live, with sign-in, roles and actions.

Promises: what a page shows is rendered once for all who look, and takes a tenth of the loop at most; nobody acts without a
role, a reason and an event that names both; a viewer that does not read costs its own connection. Entry points: `Desk` (what
the pages share; a room adds an `Addition`), `desk_app` (the ASGI app). Imported by `actors.desk`, which opens the listener.
"""

from runtime.public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
