"""Keys, as workers use them: everything about claiming, confirming and giving back under one name."""

from db.activation import (
    MAX_ATTEMPTS,
    ActivationOutcome,
    ActivationResult,
    FailureResult,
    claim_activations,
    confirm_activation,
    fail_activation,
    postpone_activation,
)
from db.claims import Owner, enlist_owner
from db.key_claims import Applied, KeyClaim, Placement, longest_retry
from db.key_rows import want_absent, want_present
from db.removal import RemovalResult, claim_removals, confirm_removal, fail_removal, postpone_removal

__all__ = [
    "MAX_ATTEMPTS",
    "ActivationOutcome",
    "ActivationResult",
    "Applied",
    "FailureResult",
    "KeyClaim",
    "Owner",
    "Placement",
    "RemovalResult",
    "claim_activations",
    "claim_removals",
    "confirm_activation",
    "confirm_removal",
    "enlist_owner",
    "fail_activation",
    "fail_removal",
    "longest_retry",
    "postpone_activation",
    "postpone_removal",
    "want_absent",
    "want_present",
]
