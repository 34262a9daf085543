"""The interface for shop front ends, as routes."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final, NoReturn

import attrs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from actors.announcements import PurchaseFinal
from actors.payments.invoicing import open_invoice_for
from actors.payments.provider import Provider
from actors.pool.client import Pool
from actors.shop.description import PREFIX, Description, MalformedRequest, Operation
from actors.shop.operations import OPERATIONS, ShopAnswer, ShopRequest, utc_time
from actors.shop.problems import NonceUsed, problem, problem_of
from actors.shop.signature import Signed, verify_signature
from db.errors import BusinessError
from db.settings import LimitSettings, TrialSettings
from db.tx import Tx
from db.work.audit import act_as
from db.work.nonces import use_nonce
from db.work.sealing import Seal
from runtime import Message
from runtime.config import Secret

BODY_LIMIT: Final = 16 * 1024
"""Bytes. The largest legal body has a few hundred."""
DESCRIPTION_PATH: Final = "/openapi.json"


@attrs.frozen
class Shop:
    """What the routes need of the actor that serves them."""

    keys: Mapping[str, Secret]
    pool: Callable[[], Pool]
    providers: Mapping[str, Provider]
    seal: Callable[[], Seal]
    """The key of payout destinations. Raises SealError."""
    limits: LimitSettings = attrs.field(factory=LimitSettings)
    trials: TrialSettings = attrs.field(factory=TrialSettings)
    clock: Callable[[], float] = time.time
    """Unix seconds."""
    publish: Callable[[Message], object] = lambda _: None
    """Announces to other actors what was committed."""


def shop_routes(description: Description, shop: Shop) -> list[Route]:
    """A route for each operation, and one for the description itself, which alone needs no signature."""
    document = json.dumps(description.document).encode()

    async def describe(_: Request) -> Response:
        return Response(document, media_type="application/json")

    by_path: dict[str, dict[str, Operation]] = {}
    for operation in description.operations.values():
        by_path.setdefault(operation.path, {})[operation.method] = operation
    routes = [Route(PREFIX + DESCRIPTION_PATH, describe, methods=["GET"])]
    for path, operations in by_path.items():
        endpoint = _endpoint(operations, shop)
        routes.append(Route(PREFIX + path, endpoint, methods=sorted(operations)))
    return routes


def _endpoint(operations: Mapping[str, Operation], shop: Shop) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        operation = operations["GET" if request.method == "HEAD" else request.method]
        try:
            body = await _read(request)
            if body is None:
                return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {BODY_LIMIT} bytes")
            signed = verify_signature(
                shop.keys, request.headers, request.method, _target(request), body, now=shop.clock()
            )
            call = attrs.evolve(
                _call(operation, request, signed, body),
                providers=shop.providers,
                seal=shop.seal,
                limits=shop.limits,
                trials=shop.trials,
            )
            said = await shop.pool().run(f"shop.{operation.name}", _carry_out, operation, call, signed)
            if isinstance(said, BusinessError):
                return problem_of(said) or problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(said))
            if operation.name == "buy_from_balance" and not said["replayed"]:
                order_id = said["order_id"]
                shop.publish(
                    PurchaseFinal("balance", "entitlement", None, order_id if isinstance(order_id, int) else None)
                )
            if operation.name == "open_invoice":
                said = await _invoice(shop, call)
            return JSONResponse(said)
        except Exception as error:
            told = problem_of(error)
            if told is None:
                raise
            return told

    return answer


async def _invoice(shop: Shop, call: ShopRequest) -> ShopAnswer:
    provider = call.provider(call.body["provider"])
    invoice = await open_invoice_for(shop.pool(), provider, call.parameters["order_id"], allowance=call.allowance)
    return {
        "provider": provider.name,
        "invoice_id": invoice.invoice_id,
        "pay_url": invoice.pay_url,
        "expires_at": utc_time(invoice.order_ends_at),
    }


async def _carry_out(tx: Tx, operation: Operation, call: ShopRequest, signed: Signed) -> ShopAnswer | BusinessError:
    """The answer; or what a rule has against it, with the nonce kept: who overheard the request must not repeat it once the
    rule has nothing against it any more."""
    if not await use_nonce(tx, signed.key_id, signed.nonce):
        raise NonceUsed("this nonce was used before; sign every request with a new one")
    if operation.method == "GET":
        return await OPERATIONS[operation.name](tx, call)
    await act_as(tx, call.who)
    await tx.execute("SAVEPOINT operation")
    try:
        return await OPERATIONS[operation.name](tx, call)
    except BusinessError as error:
        await tx.execute("ROLLBACK TO SAVEPOINT operation")
        return error


def _call(operation: Operation, request: Request, signed: Signed, body: bytes) -> ShopRequest:
    parameters = {name: operation.check_parameter(name, text) for name, text in request.path_params.items()}
    if operation.body is None:
        if body:
            raise MalformedRequest("body: this operation takes none")
        return ShopRequest(signed.key_id, parameters)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise MalformedRequest("body: it is sent as application/json")
    return ShopRequest(signed.key_id, parameters, operation.check_body(_json(body)))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"body: not JSON as RFC 8259 has it: {type(error).__name__}") from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")  # readers differ on which one counts
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


async def _read(request: Request) -> bytes | None:
    body = b""
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            body += chunk
            if len(body) > BODY_LIMIT:
                return None
    return body


def _target(request: Request) -> str:
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    query: bytes = request.scope["query_string"]
    target = raw.partition(b"?")[0] + (b"?" + query if query else b"")
    return target.decode("latin-1")
