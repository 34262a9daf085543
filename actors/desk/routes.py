"""What the admin listener answers. Every answer is made from memory, without waiting for anything."""

from __future__ import annotations

import hmac

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from runtime import Services, in_words, judge_readiness
from runtime.config import Secret
from runtime.http import route

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def admin_app(services: Services, token: Secret) -> Starlette:
    """The ASGI application.

    `GET /livez`: 200 while this loop turns; never the database. `GET /startupz`: 200 once every actor has been up. `GET
    /readyz`: 200 if every actor can do its work and as many nodes as are required are well, else 503; with the reasons by actor,
    and beside them what is wrong with nodes that can be done without. `GET /metrics`: Prometheus text; with a token set, 401
    without it.
    """

    started = False

    async def livez(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def startupz(_: Request) -> Response:
        nonlocal started
        if not started:
            waiting = [address.name for address in services.registry if address.incarnation == 0]
            if waiting:
                return JSONResponse({"started": False, "waiting_for": waiting}, status_code=503)
            started = True
        return JSONResponse({"started": True})

    async def readyz(_: Request) -> Response:
        found = judge_readiness(services.registry)
        said = {
            "ready": found.is_ready,
            "not_ready": in_words(found.not_ready),
            "degraded": in_words(found.degraded),
        }
        return JSONResponse(said, status_code=200 if found.is_ready else 503)

    async def metrics(request: Request) -> Response:
        if token and not _is_authorized(request, token):
            return PlainTextResponse("a bearer token is needed\n", 401, headers={"www-authenticate": "Bearer"})
        return Response(services.metrics.render(), media_type=_METRICS_TYPE)

    return route(
        [
            Route("/livez", livez),
            Route("/startupz", startupz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ]
    )


def _is_authorized(request: Request, token: Secret) -> bool:
    given = request.headers.get("authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {token.reveal()}".encode())
