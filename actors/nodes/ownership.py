"""Ruling one node: its nonce is changed at the start and every hour, so that no copy of the database can rule it as well."""

from __future__ import annotations

import hashlib
import logging
from typing import ClassVar, TypeAlias

import attrs
import trio

from actors.pool.client import Pool
from db.keys.node_owner import OwnerClaim, confirm_claim, former_nonces, is_taking, pending_claim
from runtime import Event
from vpn.errors import NodeNotOwner
from vpn.node.client import AgentClient
from vpn.protocol import CAN_OWN, NodeState

_Found: TypeAlias = NodeNotOwner | None


@attrs.frozen
class NodeRestored(Event):
    """The node came back in an earlier state, from a backup or a snapshot: it is ruled again and compared as a whole."""

    level: ClassVar[int] = logging.WARNING
    changes_back: int
    """How often its nonce had been changed since that state."""

    def line(self) -> str:
        return (
            f"{self.actor} came back in an earlier state (its owner's nonce is {self.changes_back} changes old), as from a "
            f"backup; it is "
            "ruled again, and all its keys are compared"
        )


@attrs.define(eq=False)
class NodeOwnership:
    """Keeps this database the owner of one node; supervisors of one database share it.

    `rule` is called at each look at the node. `every` is the time in seconds after which the nonce is changed. `trouble` says
    why the node takes no changes of ours; empty while it does.
    """

    name: str
    every: float
    trouble: str = attrs.field(init=False, default="")
    _nonce: str = attrs.field(init=False, default="", repr=False)
    _claimed_at: float = attrs.field(init=False, default=float("-inf"))
    _incarnation: tuple[str, str] = attrs.field(init=False, default=("", ""))
    _restored: int = attrs.field(init=False, default=0)
    _is_open: bool = attrs.field(init=False, default=False)
    _lock: trio.Lock = attrs.field(init=False, factory=trio.Lock)

    async def rule(self, client: AgentClient, state: NodeState, pool: Pool) -> int:
        """Claim the node if it is time to. Returns how many changes of the nonce ago its state is from: 0, unless it was
        restored.

        Raises NodeError if the node does not answer, and what `Pool.run` raises.
        """
        if not state.can(CAN_OWN):
            self.trouble = ""  # an agent of an earlier version takes changes from everybody
            return 0
        incarnation = (state.agent_id, state.boot_id)
        is_due = (
            trio.current_time() - self._claimed_at >= self.every or self.trouble or incarnation != self._incarnation
        )
        if is_due or await pool.run("node.is_taking", is_taking, self.name):
            self._incarnation = incarnation
            async with self._lock:
                await self._claim(client, pool)
        found, self._restored = self._restored, 0
        return found

    async def again(self, client: AgentClient, pool: Pool, refused: str) -> bool:
        """A change with the nonce `refused` was refused: read the row anew. True if another nonce rules now, so that the
        change may be repeated once."""
        async with self._lock:
            if self._nonce == refused:
                await self._claim(client, pool)
        return not self.trouble and self._nonce != refused

    @property
    def nonce(self) -> str:
        """What is said with each request."""
        return self._nonce

    async def _claim(self, client: AgentClient, pool: Pool) -> None:
        refused: _Found = None
        for _ in range(2):  # another supervisor of this database may just have changed it: then the row says so
            claim = await pool.run("node.claim", pending_claim, self.name)
            refused = await _said(client, claim, claim.previous)
            if refused is None:
                await self._confirm(pool, claim)
                return
        assert refused is not None
        # what another supervisor confirmed meanwhile is no earlier state
        former = [nonce for nonce in await pool.run("node.former", former_nonces, self.name) if nonce != claim.nonce]
        digests = [hashlib.sha256(nonce.encode()).hexdigest() for nonce in former]
        if refused.nonce_digest in digests:
            back = digests.index(refused.nonce_digest)
            if await _said(client, claim, former[back]) is None:
                await self._confirm(pool, claim, back)
                self._restored = back
                return
        # said again at each look: the node may be given back to us
        self.trouble = refused.text
        self._is_open = refused.takes_changes

    async def _confirm(self, pool: Pool, claim: OwnerClaim, changes_back: int | None = None) -> None:
        self._nonce = claim.nonce  # even if the database is away now: the node goes by it
        self._claimed_at = trio.current_time()
        self.trouble = ""
        await pool.run("node.confirm", confirm_claim, self.name, claim.nonce, changes_back)

    @property
    def is_refused(self) -> bool:
        """Whether the node takes no changes of ours: not so while nobody rules it."""
        return bool(self.trouble) and not self._is_open


async def _said(client: AgentClient, claim: OwnerClaim, previous: str) -> _Found:
    try:
        await client.claim(claim.database_id, previous, claim.nonce, take=claim.is_taking, code=claim.code)
    except NodeNotOwner as error:
        return error
    return None
