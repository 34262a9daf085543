"""Activation: keys that were paid for go live on their nodes."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from actors.keys.key_worker import KeyWorker
from actors.nodes.messages import PutKey
from actors.pool.client import Pool
from db.keys.activation import claim_activations, confirm_activation, fail_activation, postpone_activation
from db.keys.claims import KeyClaim, NodeConfirmation, Placement
from db.work.claims import Claimer
from vpn.protocol import KeySpec


@attrs.define(eq=False)
class Activation(KeyWorker):
    """Puts every key that is wanted on its nodes, and says so in the database only after the node has read it back.

    Role: the second half of a purchase. Owns, receives, sends, on crash: see KeyWorker.
    Invariants: a key becomes active at most once a change; if it is not wanted any more by the time the node has it, its
    removal is queued in the same transaction that finds out.
    """

    async def claim(self, pool: Pool, owner: Claimer) -> list[KeyClaim]:
        return await pool.run("activation.claim", claim_activations, owner, self.page_size, self.claim_seconds)

    async def tell(self, claim: KeyClaim, place: Placement) -> NodeConfirmation:
        spec = KeySpec(
            key_id=claim.key_id,
            uuid=claim.uuid,
            flow=place.flow,
            inbounds=place.inbounds,
            expires_at=claim.expires_at,
            generation=claim.generation,
        )
        await self.ask_node(place, PutKey(spec))
        return NodeConfirmation(place.node)

    async def confirm(self, pool: Pool, claim: KeyClaim, applied: Sequence[NodeConfirmation]) -> str:
        outcome = await pool.run("activation.confirm", confirm_activation, claim, applied)
        return outcome.result.value

    async def postpone(self, pool: Pool, claim: KeyClaim, delay: float, why: str) -> bool:
        return await pool.run("activation.postpone", postpone_activation, claim, delay, why)

    async def fail(self, pool: Pool, claim: KeyClaim, why: str, known_generation: int) -> str:
        return (await pool.run("activation.fail", fail_activation, claim, why, known_generation)).value
