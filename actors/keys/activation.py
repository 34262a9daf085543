"""Activation: keys that were paid for go live on their nodes."""

from __future__ import annotations

from operator import attrgetter

import attrs

from actors.announcements import KeyActive
from actors.keys.diff import key_spec
from actors.keys.key_worker import KeySql, KeyWorker
from actors.nodes.messages import PutKey
from db.keys.activation import (
    ActivationResult,
    claim_activations,
    confirm_activation,
    fail_activation,
    postpone_activation,
)
from db.keys.claims import KeyClaim, Placement


@attrs.define(eq=False)
class Activation(KeyWorker):
    """Puts every key that is wanted on its nodes, and says so in the database only after the node has read it back.

    Role: the second half of a purchase. Owns, receives, sends, on crash: see KeyWorker.
    Invariants: a key becomes active at most once a change; if it is not wanted any more by the time the node has it, its
    removal is queued in the same transaction that finds out.
    """

    sql = KeySql(
        "activation",
        claim=claim_activations,
        confirm=confirm_activation,
        confirmed=attrgetter("result.value"),
        postpone=postpone_activation,
        fail=fail_activation,
        failed=attrgetter("value"),
        final=ActivationResult.ACTIVATED,
        partly=ActivationResult.PARTLY,
        announcement=KeyActive,
    )

    def request_for(self, claim: KeyClaim, place: Placement) -> PutKey:
        return PutKey(key_spec(claim, place))
