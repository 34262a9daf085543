"""The tables `[database]`, `[referral]`, `[withdrawals]`, `[limits]` and `[trials]` of the configuration file."""

from pathlib import Path

import attrs

from runtime.config import Secret, settings

OLDEST_SERVER = 15
"""The oldest major version of PostgreSQL that the schema and the statements are written for."""


@settings("database")
@attrs.frozen
class DatabaseSettings:
    """Which database to use, and how patient its sessions are. All times are in seconds."""

    dsn: Secret = attrs.field(factory=Secret)
    """A PostgreSQL connection string (`postgresql://user@host/name`); empty means the embedded server."""

    purpose: str = attrs.field(default="production", validator=attrs.validators.in_(("production", "demo", "test")))
    """What a new database is created for. Only `demo` and `test` let the clock be moved, and it never changes."""

    connect_timeout: float = attrs.field(default=5.0, validator=attrs.validators.gt(0))
    """How long one attempt to connect may take."""

    statement_timeout: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    """The server ends a statement that runs longer. A belt: leases end sooner."""

    lock_timeout: float = attrs.field(default=3.0, validator=attrs.validators.gt(0))
    """The server ends a statement that waits longer for one lock."""

    idle_in_transaction_timeout: float = attrs.field(default=15.0, validator=attrs.validators.gt(0))
    """The server ends a session that sits idle in a transaction for longer."""

    connection_check_interval: float = attrs.field(default=1.0, validator=attrs.validators.ge(0))
    """How often the server looks whether a busy session's client is still there, so that a killed supervisor's locks
    are freed. 0 switches it off."""

    migrate_on_start: bool = True
    """Bring the schema up to date before serving; when off, an outdated schema refuses to start."""

    packages: tuple[str, ...] = ()
    """Python packages with tables of their own, whose `migrations` folders are applied after ours."""

    migration_wait: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    """How long to wait for another process that is migrating the same database."""


@settings("referral")
@attrs.frozen
class ReferralSettings:
    """What a referrer gets, as far as it can be set."""

    hold_days: int = attrs.field(
        default=14, validator=[attrs.validators.instance_of(int), attrs.validators.ge(0), attrs.validators.le(3650)]
    )
    """Days for which a reward is held back before it can be withdrawn. Rewards keep the rule of their day; housekeeping
    writes a changed rule into the database, where every program reads it."""


@settings("withdrawals")
@attrs.frozen
class WithdrawalSettings:
    """How payout destinations are kept, and who may pay them out."""

    key_file: Path | None = None
    """The key that seals payout destinations, made at first use. Default: `payout.key` in `embedded.data_dir`. Keep it in the
    backup: without it no destination can be read."""
    second_operator_above: int = attrs.field(default=10_000_00, validator=attrs.validators.ge(0))
    """Kopecks. A withdrawal of more is paid only after another operator has confirmed it. Where no `[operators]` are declared
    there is no other one, and none is asked for."""


def _most(default: int) -> int:
    found: int = attrs.field(default=default, validator=[attrs.validators.ge(1), attrs.validators.le(10_000)])
    return found


def _window(default: float) -> float:
    found: float = attrs.field(default=default, validator=[attrs.validators.ge(1), attrs.validators.le(31 * 86_400)])
    return found


@settings("limits")
@attrs.frozen
class LimitSettings:
    """How much one customer may ask for, through front ends and operators alike. A captured payment is never refused."""

    open_orders: int = _most(5)
    """Orders that are open, which is payable, at once."""
    checkouts: int = _most(5)
    """Pay pages opened within `checkout_seconds`."""
    checkout_seconds: float = _window(60.0)
    reissues: int = _most(3)
    """New keys within `reissue_seconds`."""
    reissue_seconds: float = _window(300.0)
    trials: int = _most(1)
    """Attempts to start the trial within `trial_seconds`, refused ones included; there is one trial per customer ever."""
    trial_seconds: float = _window(3600.0)


@settings("trials")
@attrs.frozen
class TrialSettings:
    """Who may have the trial, beside that it is once per customer and never while a subscription runs."""

    past_payers: bool = False
    """Whether somebody who has bought access before may have it."""
    revoked: bool = True
    """Whether somebody whose access was revoked may have it."""
