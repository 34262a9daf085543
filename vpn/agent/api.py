"""The agent's HTTP interface."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import attrs
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from runtime.config.secret import Secret
from runtime.logs import get_logger
from runtime.metrics import METRICS
from vpn.agent.auth import Gate, error_response
from vpn.agent.desired import Conflict, UuidTaken
from vpn.agent.node import Node, UnknownInbound
from vpn.agent.report import Reporter
from vpn.errors import StoreFailed, XrayCallFailed, XrayDown
from vpn.protocol import KEY_ID, MAX_GENERATION, KeyPage, KeySpec, Usage
from vpn.wire import (
    WireError,
    applied_to_json,
    key_to_json,
    page_to_json,
    removed_to_json,
    spec_from_json,
    state_to_json,
    sync_to_json,
    usage_to_json,
)

log = get_logger(__name__)

MAX_BODY: Final = 64 * 1024
MAX_SYNC: Final = 256 * 1024 * 1024
MAX_LINE: Final = 8 * 1024
MAX_PAGE: Final = 10_000
_SLOW_BODY: Final = 20.0

Handler = Callable[[Request], Awaitable[Response]]


class BadRequest(Exception):
    """The request is not acceptable; `status` and `code` say how."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def make_app(node: Node, reporter: Reporter, token: Secret) -> ASGIApp:
    """The interface of xray nodes under /v1, and /metrics. Everything needs the token."""
    api = _Api(node, reporter)
    routes = [
        Route("/v1/users", api.list_keys, methods=["GET"]),
        Route("/v1/users/{key_id}", api.get_key, methods=["GET"]),
        Route("/v1/users/{key_id}", api.put_key, methods=["PUT"]),
        Route("/v1/users/{key_id}", api.delete_key, methods=["DELETE"]),
        Route("/v1/users/{key_id}/kick", api.kick, methods=["POST"]),
        Route("/v1/state", api.state, methods=["GET"]),
        Route("/v1/sync", api.sync, methods=["POST"]),
        Route("/v1/usage", api.usage, methods=["GET"]),
        Route("/v1/clock", api.clock, methods=["PUT"]),
        Route("/metrics", api.metrics, methods=["GET"]),
    ]
    handlers = {
        BadRequest: _bad_request,
        WireError: _wire_error,
        UnknownInbound: _unprocessable,
        Conflict: _conflict,
        UuidTaken: _uuid_taken,
        XrayDown: _unavailable,
        XrayCallFailed: _unavailable,
        StoreFailed: _store_failed,
        HTTPException: _http_error,
        ClientDisconnect: _gone,
        Exception: _unexpected,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]  # each takes its own exception
    return Gate(app, token)


@attrs.frozen
class _Api:
    node: Node
    reporter: Reporter

    async def put_key(self, request: Request) -> Response:
        """Want a key: 201 changed, 200 same, 409 older or removed generation, 422 unacceptable, 503 not applied yet."""
        spec = spec_from_json(_json(await _body(request)), key_id=request.path_params["key_id"])
        self.reporter.heard()
        applied = await self.node.put(spec)
        return JSONResponse(applied_to_json(applied), 201 if applied.created else 200)

    async def delete_key(self, request: Request) -> Response:
        """Do not want a key up to `generation`: 200, also when it was never there; 409 if a newer one is wanted."""
        key_id = _key_id(request)
        generation = _integer(request, "generation", None, 0, MAX_GENERATION)
        self.reporter.heard()
        return JSONResponse(removed_to_json(await self.node.remove(key_id, generation)))

    async def get_key(self, request: Request) -> Response:
        """One wanted key, or 404."""
        self.reporter.heard()
        key = self.node.get(_key_id(request))
        if key is None:
            return error_response(404, "unknown_key", "no such key is wanted here")
        return JSONResponse(key_to_json(key))

    async def list_keys(self, request: Request) -> Response:
        """A page of wanted keys after `after`, at most `limit`."""
        limit = _integer(request, "limit", 1000, 1, MAX_PAGE)
        self.reporter.heard()
        specs = self.node.store.desired.page(request.query_params.get("after", ""), limit + 1)
        keys = tuple(key for spec in specs[:limit] if (key := self.node.get(spec.key_id)) is not None)
        return JSONResponse(page_to_json(KeyPage(keys, specs[limit - 1].key_id if len(specs) > limit else None)))

    async def kick(self, request: Request) -> Response:
        """Cut the customer's open connections."""
        key_id = _key_id(request)
        self.reporter.heard()
        if self.node.get(key_id) is None:
            return error_response(404, "unknown_key", "no such key is wanted here")
        return JSONResponse({"cut": (await self.node.kick(key_id)).cut})

    async def state(self, _: Request) -> Response:
        """The node at a glance."""
        self.reporter.heard()
        return JSONResponse(state_to_json(self.reporter.state()))

    async def usage(self, request: Request) -> Response:
        """Traffic counters of this life of Xray, by key, never reset."""
        limit = _integer(request, "limit", 1000, 1, MAX_PAGE)
        self.reporter.heard()
        after = request.query_params.get("after", "")
        usage: Usage = await self.reporter.usage(after, limit)
        return JSONResponse(usage_to_json(usage))

    async def sync(self, request: Request) -> Response:
        """Want exactly the keys of the body, one JSON object a line. `unchanged_since` protects keys that changed after
        that sequence (from the state) from being dropped."""
        since = request.query_params.get("unchanged_since")
        unchanged_since = None if since is None else _integer(request, "unchanged_since", None, 0, MAX_GENERATION)
        self.reporter.heard()
        specs: dict[str, KeySpec] = {}
        number = 0
        async for line in _lines(request):
            number += 1
            try:
                spec = spec_from_json(_json(line))
            except (WireError, BadRequest) as error:
                raise BadRequest(422, "invalid", f"line {number}: {error}; nothing was changed") from None
            if spec.key_id in specs:
                raise BadRequest(
                    422, "invalid", f"line {number}: key {spec.key_id!r} is there twice; nothing was changed"
                )
            specs[spec.key_id] = spec
            if number % 500 == 0:
                await trio.lowlevel.checkpoint()
        return JSONResponse(sync_to_json(await self.node.sync(list(specs.values()), unchanged_since)))

    async def clock(self, request: Request) -> Response:
        """Move the node's clock, where its configuration allows that (demonstrations and tests)."""
        data = _json(await _body(request))
        offset = data.get("offset_seconds") if isinstance(data, dict) else None
        if not isinstance(offset, int | float) or isinstance(offset, bool) or not abs(offset) < 1e9:
            raise BadRequest(422, "invalid", "offset_seconds: expected a number of seconds")
        if not self.reporter.clock.move(float(offset)):
            return error_response(403, "clock_is_fixed", "the agent was not started with --clock-offset")
        self.reporter.heard()
        self.node.clock_changed()
        return JSONResponse({"offset_seconds": float(offset)})

    async def metrics(self, _: Request) -> Response:
        """Prometheus text."""
        self.reporter.measure()
        return PlainTextResponse(METRICS.render(), media_type="text/plain; version=0.0.4")


def _key_id(request: Request) -> str:
    key_id: str = request.path_params["key_id"]
    if KEY_ID.fullmatch(key_id) is None:
        raise BadRequest(422, "invalid", "key_id: 1 to 64 lower-case letters, digits, dots, dashes or underscores")
    return key_id


def _integer(request: Request, name: str, default: int | None, low: int, high: int) -> int:
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 16 or not low <= int(text) <= high:
        raise BadRequest(422, "invalid", f"{name}: expected a whole number from {low} to {high}")
    return int(text)


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise BadRequest(400, "not_json", "the body is not JSON") from None


async def _body(request: Request) -> bytes:
    body = bytearray()
    with trio.move_on_after(_SLOW_BODY) as limit:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise BadRequest(413, "too_large", f"the body is larger than {MAX_BODY} bytes")
    if limit.cancelled_caught:
        raise BadRequest(408, "too_slow", f"the body did not arrive within {_SLOW_BODY:g} s")
    return bytes(body)


async def _lines(request: Request) -> AsyncIterator[bytes]:
    pending, total = b"", 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > MAX_SYNC:
            raise BadRequest(413, "too_large", f"the body is larger than {MAX_SYNC >> 20} MiB")
        *lines, pending = (pending + chunk).split(b"\n")
        if len(pending) > MAX_LINE:
            raise BadRequest(413, "too_large", f"a line is longer than {MAX_LINE} bytes")
        for line in lines:
            if line.strip():
                yield line
    if pending.strip():
        yield pending


async def _bad_request(_: Request, error: BadRequest) -> Response:
    return error_response(error.status, error.code, str(error))


async def _wire_error(_: Request, error: WireError) -> Response:
    return error_response(422, "invalid", str(error))


async def _unprocessable(_: Request, error: UnknownInbound) -> Response:
    return error_response(422, "unknown_inbound", str(error))


async def _conflict(_: Request, error: Conflict) -> Response:
    return error_response(409, "conflict", str(error), generation=error.generation)


async def _uuid_taken(_: Request, error: UuidTaken) -> Response:
    return error_response(422, "uuid_taken", str(error), key_id=error.key_id)


async def _unavailable(_: Request, error: Exception) -> Response:
    return error_response(503, "not_applied", f"written down, not applied yet: {error}")


async def _store_failed(_: Request, error: StoreFailed) -> Response:
    return error_response(507, "store_failed", str(error))


async def _http_error(_: Request, error: HTTPException) -> Response:
    return error_response(error.status_code, "http", error.detail)


async def _gone(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=499)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("a request failed unexpectedly", method=request.method, route=request.url.path[:80], error=error)
    return error_response(500, "internal", f"{type(error).__name__}; the agent's log has the details")
