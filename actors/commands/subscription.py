"""`atlas subscription`: a customer's access as it stands, with the link."""

from __future__ import annotations

from collections.abc import Mapping

import click

from actors.commands.database import in_transaction
from db.errors import BusinessError
from db.subscriptions import KeyView, NodeFacts, SubscriptionView, get_subscription
from runtime.cli.options import config_option, json_option
from runtime.cli.output import emit
from vpn.link import link_for
from vpn.protocol import InboundFacts, KeySpec


@click.command()
@click.argument("telegram_id", type=int)
@config_option
@json_option
@click.pass_context
def subscription(ctx: click.Context, telegram_id: int, as_json: bool) -> None:
    """Show state, end and link of customer TELEGRAM_ID.

    The link is a credential: whoever has it is the customer. It is shown once a node has confirmed the key.
    """
    found = in_transaction(ctx, "subscription", get_subscription, telegram_id)
    if found is None:
        raise BusinessError(
            f"customer {telegram_id} never had a subscription; `atlas buy --customer {telegram_id} …` records one"
        )
    links = [] if found.key is None or not found.is_running else [link_of(found.key, node) for node in found.key.nodes]
    data = {
        "telegram_id": found.telegram_id,
        "state": state_of(found),
        "tariff": found.tariff,
        "source": found.source,
        "expires_at": found.expires_at.isoformat(),
        "auto_renew": found.auto_renew,
        "key": None if found.key is None else found.key.key_id,
        "key_status": None if found.key is None else found.key.status,
        "trouble": None if found.key is None else found.key.last_error,
        "link": links[0] if links else None,
        "links": links,
    }
    emit(data, as_json, lambda: _text(found, data, links))


def state_of(found: SubscriptionView) -> str:
    """One word: active (paid for, and the key works), activating, failed, expired or revoked."""
    if not found.is_running:
        return "expired" if found.state == "active" else found.state
    if found.key is None or found.key.status == "pending":
        return "active" if found.key is not None and found.key.nodes else "activating"
    return found.key.status


def link_of(key: KeyView, node: NodeFacts) -> str:
    """The link that opens this key on this node."""
    spec = KeySpec(key_id=key.key_id, uuid=key.uuid, flow=node.flow, generation=key.generation)
    return link_for(spec, inbound_of(node.endpoint), f"ATLAS {node.name}").render()


def inbound_of(endpoint: Mapping[str, object]) -> InboundFacts:
    """A node's inbound, from the facts that the database keeps about it."""
    port = endpoint["port"]
    assert isinstance(port, int)
    texts = {name: str(value) for name, value in endpoint.items() if name != "port"}
    return InboundFacts(port=port, **texts)


def _text(found: SubscriptionView, data: Mapping[str, object], links: list[str]) -> str:
    rows = [
        ("customer", str(found.telegram_id)),
        ("state", str(data["state"])),
        ("tariff", found.tariff),
        ("paid from", found.source),
        ("until", f"{found.expires_at:%Y-%m-%d %H:%M} UTC"),
    ]
    if data["trouble"] and data["state"] != "active":
        rows.append(("waiting", str(data["trouble"])))
    rows += [("link", link) for link in links]
    return "\n".join(f"{label:<10}{value}" for label, value in rows)
