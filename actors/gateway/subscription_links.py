"""The subscription link: where a customer's program fetches the links that work now."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from actors.nodes.links import LINKS_LEFT_OUT, log, why_no_access, working_links
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
from vpn.subscription.no_access import NoAccess
from vpn.subscription.render import Format, UnknownFormat, choose_format, connects_over_reality, render

LONGEST_TOKEN: Final = 64
_NOBODY: Final = "there is no such subscription\n"
"""One answer for every wrong address: it tells nothing about right ones."""


def link_routes(shop: ShopSettings, pool: Callable[[], Pool]) -> list[Route]:
    """`GET /s/{token}`, and `/s/{token}/{form}` for a form that the program's name does not tell.

    Without a right to access (ended, revoked, not yet active) every form is a dead end that is called by the reason, and so is
    one for a program that can use none of the customer's nodes; the announcement says it too. A node that a form has no words
    for, or that the program cannot connect to, is left out for it alone. 404 for an unknown token; 503 while the database is
    away.
    """

    async def answer(request: Request) -> Response:
        token, suffix = request.path_params["token"], request.path_params.get("form", "")
        if len(token) > LONGEST_TOKEN or not token.isascii():
            return PlainTextResponse(_NOBODY, HTTPStatus.NOT_FOUND)
        try:
            program = request.headers.get("user-agent", "")
            form = choose_format(program, request.headers.get("accept", ""), suffix)
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
        # whoever asks for a form by its name gets what it can say, whatever we think of the program
        return answer_for(shop, form, token, *found, over_reality=bool(suffix) or connects_over_reality(program))

    return [Route("/s/{token}", answer, methods=["GET"]), Route("/s/{token}/{form}", answer, methods=["GET"])]


async def _find(tx: Tx, token: str) -> tuple[str, SubscriptionView | None, CustomerTraffic] | None:
    owner = await owner_of_token(tx, token)
    if owner is None:
        return None
    customer = await find_customer(tx, owner)
    return customer.language, await get_subscription(tx, owner), await usage_of(tx, owner)


def _can_use(form: Format, link: VlessLink, *, over_reality: bool) -> bool:
    """Whether this link is of use to the program; a customer's other nodes must not be lost with the one that is not."""
    why = ""
    if link.security == "reality" and not over_reality:
        why = "the program does not offer X25519MLKEM768, without which a REALITY node refuses it"
    try:
        render([link], form)
    except LinkError as error:
        why = str(error)
    if why:
        node = link.name.removeprefix("ATLAS ")
        LINKS_LEFT_OUT.labels(node).inc()
        log.warning(
            "a customer's program cannot use a node's link; the node is left out", form=form.value, node=node, why=why
        )
    return not why


def answer_for(
    shop: ShopSettings,
    form: Format,
    token: str,
    language: str,
    found: SubscriptionView | None,
    traffic: CustomerTraffic,
    *,
    over_reality: bool = True,
) -> Response:
    """What is served: the customer's working links in this form, or a dead end; with the headers that go with it."""
    links = working_links(found)
    url = f"{shop.public_url}/s/{token}" if shop.public_url else ""
    usable = [link for link in links if _can_use(form, link, over_reality=over_reality)]
    no_access = NoAccess.OTHER_APP if links else why_no_access(found)
    body = render(usable, form, title=shop.title, url=url, language=language, no_access=no_access)
    said = headers(
        SubscriptionFacts(
            title=shop.title,
            expires_at=None if found is None else found.expires_at,
            upload=traffic.uploaded,
            download=traffic.downloaded,
            # the sooner a program asks again, the shorter somebody who has paid meanwhile is left without
            update_hours=shop.update_hours if usable else 1,
            support_url=shop.support_url,
            page_url=url,
            announce=shop.announce if usable else no_access.text(language),
        ),
        attachment=form not in (Format.HTML, Format.QR),
    )
    return Response(body.content, headers=said | {"content-type": body.content_type})
