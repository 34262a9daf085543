"""The links of a subscription that work now, and its state in one word."""

from __future__ import annotations

from collections.abc import Mapping

from db.access.subscriptions import KeyView, NodeFacts, SubscriptionView
from runtime import get_logger
from runtime.metrics import counter
from vpn.errors import LinkError
from vpn.link import VlessLink, link_for
from vpn.protocol import InboundFacts, KeySpec
from vpn.subscription.no_access import NoAccess

log = get_logger("links")

LINKS_LEFT_OUT = counter(
    "atlas_links_left_out_total",
    "Links that could not be made, or not said in the form that was asked for, because of the node's public facts.",
    labels=("node",),
)


def subscription_state(found: SubscriptionView) -> str:
    """One word: active (paid for, and the key works), activating, failed, expired or revoked."""
    if not found.is_running:
        return "expired" if found.state == "active" else found.state
    if found.key is None or found.key.status == "pending":
        return "active" if found.key is not None and found.key.nodes else "activating"
    return found.key.status


def why_no_access(found: SubscriptionView | None) -> NoAccess:
    """Why `working_links` is empty for this customer."""
    if found is None:
        return NoAccess.NO_SUBSCRIPTION
    return {
        "expired": NoAccess.EXPIRED,
        "revoked": NoAccess.REVOKED,
        "failed": NoAccess.FAILED,
        "active": NoAccess.NO_SERVER,
    }.get(subscription_state(found), NoAccess.ACTIVATING)


def working_links(found: SubscriptionView | None) -> list[VlessLink]:
    """The links that work now, one a node that has confirmed the key; none if the subscription does not run.

    A node of whose facts no link can be made is left out, counted and named in the log: the others' links are worth having.
    """
    if found is None or found.key is None or not found.is_running:
        return []
    links = []
    for node in found.key.nodes:
        try:
            links.append(key_link(found.key, node))
        except LinkError as error:
            LINKS_LEFT_OUT.labels(node.name).inc()
            log.warning(
                "no link can be made for this node; correct its public facts there", node=node.name, reason=str(error)
            )
    return links


def key_link(key: KeyView, node: NodeFacts) -> VlessLink:
    """The link that opens this key on this node."""
    spec = KeySpec(key_id=key.key_id, uuid=key.uuid, flow=node.flow, generation=key.generation)
    return link_for(spec, inbound_of(node.endpoint), f"ATLAS {node.name}")


def inbound_of(endpoint: Mapping[str, object]) -> InboundFacts:
    """A node's inbound, from the facts that the database keeps about it."""
    port = endpoint["port"]
    assert isinstance(port, int)
    texts = {name: str(value) for name, value in endpoint.items() if name != "port"}
    return InboundFacts(port=port, **texts)
