"""What goes wrong, as a front end is told (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actors.payments.provider import ProviderUnavailable
from actors.shop.description import PREFIX, MalformedRequest
from actors.shop.signature import SignatureRefused
from db.driver.classify import Fault, classify, is_driver_error
from db.errors import (
    BusinessError,
    InsufficientFunds,
    LeaseError,
    LeaseMisused,
    OrderConflict,
    PriceChanged,
    UnknownCustomer,
    UnknownOrder,
)
from db.work.limits import LimitReached
from db.work.sealing import SealError
from runtime import get_logger

_log = get_logger("gateway")

RETRY_SECONDS: Final = 1
_STATUS: Final[tuple[tuple[type[Exception], HTTPStatus], ...]] = (
    (SignatureRefused, HTTPStatus.UNAUTHORIZED),
    (InsufficientFunds, HTTPStatus.PAYMENT_REQUIRED),
    (UnknownCustomer, HTTPStatus.NOT_FOUND),
    (UnknownOrder, HTTPStatus.NOT_FOUND),
    (OrderConflict, HTTPStatus.CONFLICT),
    (PriceChanged, HTTPStatus.CONFLICT),
    (BusinessError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (MalformedRequest, HTTPStatus.BAD_REQUEST),
)


class NonceUsed(OrderConflict):
    """The request was carried out before, or is a copy that another sender repeats."""


def problem(status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer to a request that was not carried out."""
    if headers is None and status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"retry-after": str(RETRY_SECONDS)}
    content = {"title": status.phrase, "status": int(status), "detail": detail}
    return JSONResponse(content, int(status), headers, media_type="application/problem+json")


def refusal_response(path: str, status: int, detail: str, headers: Mapping[str, str]) -> Response:
    """Return the answer to a request for `path` that is refused before its operation: for a front end, a problem document."""
    if path == PREFIX or path.startswith(f"{PREFIX}/"):
        return problem(HTTPStatus(status), detail, headers)
    return JSONResponse({"error": detail}, status, headers)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """The answer to a path or a method that nothing is served for."""
    assert isinstance(error, HTTPException)
    return refusal_response(request.url.path, error.status_code, error.detail, error.headers or {})


def problem_of(error: Exception) -> JSONResponse | None:
    """The answer for an error that is no defect of ours; None for any other."""
    if isinstance(error, LimitReached):
        return problem(HTTPStatus.TOO_MANY_REQUESTS, str(error), {"retry-after": str(error.retry_seconds)})
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return problem(status, str(error))
    if isinstance(error, SealError):
        _log.error("a withdrawal was refused", why=str(error))  # for the operator; a front end has no key file
        return problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "withdrawals cannot be taken at this moment; send the request again"
        )
    if isinstance(error, ProviderUnavailable):
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, "the payment provider does not answer; send the request again")
    is_away = isinstance(error, LeaseError) and not isinstance(error, LeaseMisused)
    if is_away or (is_driver_error(error) and classify(error) is not Fault.PERMANENT):
        # The reason is the operator's, and is in the log of the pool.
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, "the database is away or overloaded; send the request again")
    return None
