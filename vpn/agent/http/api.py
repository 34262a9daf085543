"""The agent's HTTP interface."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from typing import Final

import attrs
import trio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from runtime import get_logger
from runtime.config import Secret
from runtime.http import ConnectionLimits, route
from runtime.metrics import METRICS
from vpn.agent.http.auth import Gate, error_response
from vpn.agent.http.report import Reporter
from vpn.agent.http.requests import (
    EXPECTED,
    BadRequest,
    failure_of,
    integer_of,
    key_id_of,
    parse_json,
    read_body,
    read_lines,
)
from vpn.agent.state.owner import Ownership
from vpn.agent.xray.node import AgentNode
from vpn.node.wire import (
    WireError,
    applied_to_json,
    change_from_json,
    key_to_json,
    page_to_json,
    removed_to_json,
    spec_from_json,
    state_to_json,
    sync_to_json,
    usage_to_json,
)
from vpn.protocol import MAX_BATCH, MAX_GENERATION, Applied, KeyPage, KeySpec, Removed

log = get_logger(__name__)

MAX_PAGE: Final = 10_000
_BATCH_BYTES: Final = 1024 * 1024
_ID: Final = re.compile(r"[0-9A-Za-z-]{8,64}")


def make_app(
    node: AgentNode, reporter: Reporter, ownership: Ownership, token: Secret, limits: ConnectionLimits
) -> ASGIApp:
    """The interface of xray nodes under /v1, and /metrics. Everything needs the token."""
    api = _Api(node, reporter, ownership)
    routes = [
        Route("/v1/users", api.list_keys, methods=["GET"]),
        Route("/v1/users/{key_id}", api.get_key, methods=["GET"]),
        Route("/v1/users/{key_id}", api.put_key, methods=["PUT"]),
        Route("/v1/users/{key_id}", api.delete_key, methods=["DELETE"]),
        Route("/v1/users/{key_id}/kick", api.kick, methods=["POST"]),
        Route("/v1/batch", api.batch, methods=["POST"]),
        Route("/v1/state", api.state, methods=["GET"]),
        Route("/v1/sync", api.sync, methods=["POST"]),
        Route("/v1/usage", api.usage, methods=["GET"]),
        Route("/v1/owner", api.owner, methods=["POST"]),
        Route("/v1/clock", api.clock, methods=["PUT"]),
        Route("/metrics", api.metrics, methods=["GET"]),
    ]
    handlers = {
        **dict.fromkeys(EXPECTED, _expected),
        HTTPException: _http_error,
        ClientDisconnect: _gone,
        Exception: _unexpected,
    }
    return Gate(route(routes, handlers), token, limits, reporter.note_backend_contact, ownership)


@attrs.frozen
class _Api:
    node: AgentNode
    reporter: Reporter
    ownership: Ownership

    async def put_key(self, request: Request) -> Response:
        """Want a key: 201 changed, 200 same, 409 older or removed generation, 422 unacceptable, 503 not applied yet."""
        spec = spec_from_json(parse_json(await read_body(request)), key_id=request.path_params["key_id"])
        applied = await self.node.put(spec)
        return JSONResponse(applied_to_json(applied), 201 if applied.created else 200)

    async def delete_key(self, request: Request) -> Response:
        """Do not want a key up to `generation`: 200, also when it was never there; 409 if a newer one is wanted."""
        key_id = key_id_of(request)
        generation = integer_of(request, "generation", None, 0, MAX_GENERATION)
        return JSONResponse(removed_to_json(await self.node.remove(key_id, generation)))

    async def get_key(self, request: Request) -> Response:
        """One wanted key, or 404 with the generation up to which it was removed, if it was."""
        key_id = key_id_of(request)
        key = self.node.get(key_id)
        if key is None:
            return self._unknown(key_id)
        return JSONResponse(key_to_json(key))

    def _unknown(self, key_id: str) -> Response:
        facts: dict[str, object] = {}
        removal = self.node.store.desired.get(key_id)
        if removal is not None:
            facts = {"removed": removal.generation, "pending": self.node.is_pending(key_id)}
        return error_response(404, "unknown_key", "no such key is wanted here", **facts)

    async def batch(self, request: Request) -> Response:
        """Make many changes, each on its own: 200 with the outcomes in order, whatever they are."""
        data = parse_json(await read_body(request, _BATCH_BYTES))
        items = data.get("changes") if isinstance(data, dict) else None
        if not isinstance(items, list) or len(items) > MAX_BATCH:
            raise BadRequest(422, "invalid", f"changes: expected a list of at most {MAX_BATCH}")
        changes = [change_from_json(item) for item in items]
        if len({change.key_id for change in changes}) < len(changes):
            raise BadRequest(422, "invalid", "changes: a key is there twice; nothing was changed")
        return JSONResponse({"outcomes": [_outcome(done) for done in await self.node.batch(changes)]})

    async def list_keys(self, request: Request) -> Response:
        """A page of wanted keys after `after`, at most `limit`; with `state=expired` those whose time is over."""
        limit = integer_of(request, "limit", 1000, 1, MAX_PAGE)
        if request.query_params.get("state") == "expired":
            return self._expired(request.query_params.get("after", ""), limit)
        specs = self.node.store.desired.page(request.query_params.get("after", ""), limit + 1)
        keys = tuple(key for spec in specs[:limit] if (key := self.node.get(spec.key_id)) is not None)
        return JSONResponse(page_to_json(KeyPage(keys, specs[limit - 1].key_id if len(specs) > limit else None)))

    def _expired(self, after: str, limit: int) -> Response:
        ids = self.node.expired_after(after, limit + 1)
        keys = tuple(key for key_id in ids[:limit] if (key := self.node.get(key_id)) is not None)
        return JSONResponse(page_to_json(KeyPage(keys, ids[limit - 1] if len(ids) > limit else None)))

    async def kick(self, request: Request) -> Response:
        """Cut the customer's open connections."""
        key_id = key_id_of(request)
        if self.node.get(key_id) is None:
            return self._unknown(key_id)
        return JSONResponse({"cut": (await self.node.kick(key_id)).cut})

    async def state(self, _: Request) -> Response:
        """The node at a glance."""
        return JSONResponse(state_to_json(self.reporter.state()))

    async def usage(self, request: Request) -> Response:
        """Traffic counters of this instance of Xray, by key, never reset: all, or those that moved after the mark `since`."""
        limit = integer_of(request, "limit", 1000, 1, MAX_PAGE)
        since, after = (request.query_params.get(name, "") for name in ("since", "after"))
        return JSONResponse(usage_to_json(await self.reporter.usage(since, after, limit)))

    async def sync(self, request: Request) -> Response:
        """Want exactly the keys of the body, one JSON object a line. `unchanged_since` protects keys that changed after
        that sequence (from the state) from being dropped."""
        since = request.query_params.get("unchanged_since")
        unchanged_since = None if since is None else integer_of(request, "unchanged_since", None, 0, MAX_GENERATION)
        async with contextlib.aclosing(read_lines(request)) as lines:
            specs = await _specs(lines)
        return JSONResponse(sync_to_json(await self.node.sync(list(specs.values()), unchanged_since)))

    async def owner(self, request: Request) -> Response:
        """Rule the node: 200, or 409 if it has another owner, with what may be known of that one."""
        data = parse_json(await read_body(request))
        names = ("database_id", "previous", "nonce", "code")
        values = [data.get(name, "") if isinstance(data, dict) else None for name in names]
        database_id, previous, nonce, code = (value if isinstance(value, str) else "" for value in values)
        if not (_ID.fullmatch(database_id) and _ID.fullmatch(nonce)) or None in values:
            raise BadRequest(422, "invalid", "database_id, nonce: expected 8 to 64 letters, digits or dashes")
        take = isinstance(data, dict) and data.get("take") is True
        self.ownership.claim(database_id, previous, nonce, take=take, code=code)
        return JSONResponse({"owner": database_id})

    async def clock(self, request: Request) -> Response:
        """Move the node's clock, where its configuration allows that (demonstrations and tests)."""
        data = parse_json(await read_body(request))
        offset = data.get("offset_seconds") if isinstance(data, dict) else None
        if not isinstance(offset, int | float) or isinstance(offset, bool) or not abs(offset) < 1e9:
            raise BadRequest(422, "invalid", "offset_seconds: expected a number of seconds")
        if not self.reporter.clock.move(float(offset)):
            return error_response(403, "clock_is_fixed", "the agent was not started with --clock-offset")
        self.node.clock_changed()
        return JSONResponse({"offset_seconds": float(offset)})

    async def metrics(self, _: Request) -> Response:
        """Prometheus text."""
        self.reporter.measure()
        return PlainTextResponse(METRICS.render(), media_type="text/plain; version=0.0.4")


async def _specs(lines: AsyncIterator[bytes]) -> dict[str, KeySpec]:
    specs: dict[str, KeySpec] = {}
    number = 0
    async for line in lines:
        number += 1
        try:
            spec = spec_from_json(parse_json(line))
        except (WireError, BadRequest) as error:
            raise BadRequest(422, "invalid", f"line {number}: {error}; nothing was changed") from None
        if spec.key_id in specs:
            raise BadRequest(422, "invalid", f"line {number}: key {spec.key_id!r} is there twice; nothing was changed")
        specs[spec.key_id] = spec
        if number % 500 == 0:
            await trio.lowlevel.checkpoint()
    return specs


def _outcome(done: Applied | Removed | Exception) -> dict[str, object]:
    match done:
        case Applied():
            return {"applied": applied_to_json(done)}
        case Removed():
            return {"removed": removed_to_json(done)}
        case _:
            failure = failure_of(done)
            return {"status": failure.status, "error": failure.to_json()}


async def _expected(_: Request, error: Exception) -> Response:
    failure = failure_of(error)
    return error_response(failure.status, failure.code, failure.message, **failure.facts)


async def _http_error(_: Request, error: HTTPException) -> Response:
    return error_response(error.status_code, "http", error.detail)


async def _gone(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=499)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("a request failed unexpectedly", method=request.method, route=request.url.path[:80], error=error)
    return error_response(500, "internal", f"{type(error).__name__}; the agent's log has the details")
