"""`POST /payments/<provider>`: where providers deliver their events.

2xx: the event is stored, and settled or given up with a case; the first outcome, however often it comes. 401 and 403: not
authentic, nothing is stored. 400: authentic, but without an id to store it under. 404: the provider is off. 503: it could
not be settled for now; the provider repeats it, and the payment watcher goes on with what is stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from actors.payments.events import DELIVERIES, DeliveryRefused, DeliveryUnread
from actors.payments.intake import Intake, Unsettled
from actors.payments.provider import NotAuthentic, NotUnderstood, Provider, WebhookDelivery
from actors.payments.registry import Providers
from actors.payments.shop_updates import hand_over, until_served
from actors.payments.telegram import NAME as TELEGRAM
from actors.payments.wire import read_object
from runtime.http import site_of, source_of
from runtime.log import LogLimit

_RETRY_AFTER = {"retry-after": "10"}


def payment_routes(intake: Intake, providers: Providers) -> list[Route]:
    """One route for each provider that is on. Of refused deliveries one a minute, provider and source is reported."""
    refused = LogLimit()
    return [
        Route(f"/payments/{name}", _endpoint(intake, provider, refused), methods=["POST"])
        for name, provider in providers.items()
    ]


def _endpoint(intake: Intake, provider: Provider, refused: LogLimit) -> Callable[[Request], Awaitable[Response]]:
    context = intake.context

    async def deliver(request: Request) -> Response:
        delivery = WebhookDelivery(await request.body(), dict(request.headers), source_of(request.scope))
        try:
            event_id = provider.authenticate(delivery)
        except NotAuthentic as error:
            DELIVERIES.labels(provider.name, "refused").inc()
            left_out = refused.admit((provider.name, site_of(delivery.source)))
            if left_out is not None:
                source = str(delivery.source)
                context.emit(DeliveryRefused(context.name, provider.name, source, error.why, left_out))
            return JSONResponse({"error": "not authentic"}, error.status)
        except NotUnderstood as error:
            context.emit(DeliveryUnread(context.name, provider.name, str(error)))
            return JSONResponse({"error": "not understood"}, 400)
        if provider.name == TELEGRAM:
            update = read_object(delivery.body)
            receipt = hand_over(context, update)
            if receipt is not None:
                await until_served(context, update, receipt)
                return JSONResponse({"state": "served", "result": ""})
        try:
            event = await intake.receive(provider, event_id, delivery.body)
        except Unsettled:
            return JSONResponse({"error": "not settled yet; send it again"}, 503, headers=_RETRY_AFTER)
        return JSONResponse({"state": event.state, "result": event.outcome.get("result", "")})

    return deliver
