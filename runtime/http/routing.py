"""Which part of a program answers which path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute


def route(routes: Sequence[BaseRoute], exception_handlers: Mapping[Any, Any] | None = None) -> Starlette:
    """An ASGI app of these routes. A path with a slash too many is unknown: a redirect would repeat to the client, and to caches
    before us, whatever name the request gave this host."""
    app = Starlette(routes=routes, exception_handlers=exception_handlers)
    app.router.redirect_slashes = False
    return app
