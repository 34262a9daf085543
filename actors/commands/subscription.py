"""`atlas subscription`: a customer's access as it stands, with the link."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import click

from actors.commands.database import in_transaction
from actors.commands.parameters import TELEGRAM_ID
from actors.nodes.links import subscription_state, working_links
from db.access.subscriptions import PlaceView, SubscriptionView, get_subscription
from db.errors import BusinessError
from runtime.cli import config_option, emit, json_option
from runtime.wording import moment
from vpn.link import VlessLink
from vpn.subscription.qr import qr_terminal
from vpn.subscription.render import Format, render


@click.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.option(
    "--format",
    "form",
    type=click.Choice([form.value for form in Format]),
    help="Print only the links, in a form that a program reads; qr draws the first one on the terminal.",
)
@config_option
@json_option
@click.pass_context
def subscription(ctx: click.Context, telegram_id: int, form: str | None, as_json: bool) -> None:
    """Show state, end and link of customer TELEGRAM_ID.

    The link is a credential: whoever has it is the customer. It is shown once a node has confirmed the key.
    """
    found = in_transaction(ctx, "subscription", get_subscription, telegram_id)
    if found is None:
        raise BusinessError(
            f"customer {telegram_id} never had a subscription; `atlas buy --customer {telegram_id} …` records one"
        )
    working = working_links(found)
    if form is not None:
        _print_links(telegram_id, working, Format(form))
        return
    links = [link.render() for link in working]
    data = {
        "telegram_id": found.telegram_id,
        "state": subscription_state(found),
        "tariff": found.tariff,
        "source": found.source,
        "expires_at": found.expires_at.isoformat(),
        "auto_renew": found.auto_renew,
        "key": None if found.key is None else found.key.key_id,
        "key_status": None if found.key is None else found.key.status,
        "trouble": None if found.key is None else found.key.last_error,
        "nodes": [
            {
                "name": place.node,
                "as_wanted": place.is_as_wanted,
                "missing_since": None if place.missing_since is None else place.missing_since.isoformat(),
            }
            for place in _places(found)
        ],
        "link": links[0] if links else None,
        "links": links,
    }
    emit(data, as_json, lambda: _text(found, data, links))


def _print_links(telegram_id: int, links: list[VlessLink], form: Format) -> None:
    if not links:
        raise BusinessError(f"no link of customer {telegram_id} works now; `atlas subscription {telegram_id}` says why")
    if form is Format.QR:
        click.echo(qr_terminal(links[0].render()))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(render(links, form).content)
    sys.stdout.buffer.write(b"\n")


def _places(found: SubscriptionView) -> tuple[PlaceView, ...]:
    return () if found.key is None else found.key.places


def _trouble(place: PlaceView) -> str:
    if place.missing_since is not None:
        return f"{place.node} had it, and was seen without it since {moment(place.missing_since)}"
    return f"{place.node} has not confirmed it yet"


def _text(found: SubscriptionView, data: Mapping[str, object], links: list[str]) -> str:
    rows = [
        ("customer", str(found.telegram_id)),
        ("state", str(data["state"])),
        ("tariff", found.tariff),
        ("paid from", found.source),
        ("until", moment(found.expires_at)),
    ]
    if data["trouble"] and data["state"] != "active":
        rows.append(("waiting", str(data["trouble"])))
    places = _places(found)
    if places:
        wrong = [place for place in places if not place.is_as_wanted]
        rows.append(("nodes", f"{len(places) - len(wrong)} of {len(places)} have the key as it is wanted"))
        rows += [("", _trouble(place)) for place in wrong]
    rows += [("link", link) for link in links]
    return "\n".join(f"{label:<10}{value}" for label, value in rows)
