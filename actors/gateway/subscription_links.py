"""The subscription link: where a customer's program fetches the links that work now."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from actors.nodes.links import LINKS_LEFT_OUT, log, working_links
from actors.pool.client import Pool
from actors.shop.problems import RETRY_SECONDS, problem_of
from actors.shop.settings import ShopSettings
from db.access.subscriptions import SubscriptionView, get_subscription, owner_of_token
from db.customers import find_customer
from db.keys.usage import CustomerTraffic, usage_of
from db.tx import Tx
from vpn.errors import LinkError
from vpn.link import VlessLink
from vpn.subscription.headers import SubscriptionFacts, headers
from vpn.subscription.render import Format, UnknownFormat, choose_format, render

LONGEST_TOKEN: Final = 64
_NOBODY: Final = "there is no such subscription\n"
"""One answer for every wrong address: it tells nothing about right ones."""


def link_routes(shop: ShopSettings, pool: Callable[[], Pool]) -> list[Route]:
    """`GET /s/{token}`, and `/s/{token}/{form}` for a form that the program's name does not tell.

    An ended subscription is answered with its end and no links; an unknown token with 404; 406 if the form can say no link
    of a customer who has some; 503 while the database is away. A node that a form has no words for is left out of it alone.
    """

    async def answer(request: Request) -> Response:
        token, suffix = request.path_params["token"], request.path_params.get("form", "")
        if len(token) > LONGEST_TOKEN or not token.isascii():
            return PlainTextResponse(_NOBODY, HTTPStatus.NOT_FOUND)
        try:
            form = choose_format(request.headers.get("user-agent", ""), request.headers.get("accept", ""), suffix)
            found = await pool().run("link.find", _find, token)
        except UnknownFormat as error:
            return PlainTextResponse(f"{error}\n", HTTPStatus.NOT_FOUND)
        except Exception as error:
            if problem_of(error) is None:
                raise
            wait = {"retry-after": str(RETRY_SECONDS)}
            return PlainTextResponse("try again in a moment\n", HTTPStatus.SERVICE_UNAVAILABLE, wait)
        if found is None:
            return PlainTextResponse(_NOBODY, HTTPStatus.NOT_FOUND)
        return _render(shop, form, token, *found)

    return [Route("/s/{token}", answer, methods=["GET"]), Route("/s/{token}/{form}", answer, methods=["GET"])]


async def _find(tx: Tx, token: str) -> tuple[str, SubscriptionView | None, CustomerTraffic] | None:
    owner = await owner_of_token(tx, token)
    if owner is None:
        return None
    customer = await find_customer(tx, owner)
    return customer.language, await get_subscription(tx, owner), await usage_of(tx, owner)


def _can_say(form: Format, link: VlessLink, url: str) -> bool:
    """Whether a form has words for this link; a customer's other nodes must not be lost with the one that it has none for."""
    try:
        render([link], form, url=url)
    except LinkError as error:
        LINKS_LEFT_OUT.labels(link.name.removeprefix("ATLAS ")).inc()
        log.warning(
            "a form cannot say a node's link; the node is left out", form=form.value, node=link.name, why=str(error)
        )
        return False
    return True


def _render(
    shop: ShopSettings,
    form: Format,
    token: str,
    language: str,
    found: SubscriptionView | None,
    traffic: CustomerTraffic,
) -> Response:
    links = working_links(found)
    url = f"{shop.public_url}/s/{token}" if shop.public_url else ""
    if form is Format.QR and not url and not links:
        return PlainTextResponse("there is no link now\n", HTTPStatus.NOT_FOUND)
    sayable = [link for link in links if _can_say(form, link, url)]
    if links and not sayable:
        return PlainTextResponse(
            f"none of the links can be said as {form.value}; take another form\n", HTTPStatus.NOT_ACCEPTABLE
        )
    body = render(sayable, form, title=shop.title, url=url, language=language)
    said = headers(
        SubscriptionFacts(
            title=shop.title,
            expires_at=None if found is None else found.expires_at,
            upload=traffic.uploaded,
            download=traffic.downloaded,
            update_hours=shop.update_hours,
            support_url=shop.support_url,
            page_url=url,
            announce=shop.announce,
        ),
        attachment=form not in (Format.HTML, Format.QR),
    )
    return Response(body.content, headers=said | {"content-type": body.content_type})
