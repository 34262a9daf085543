"""The service itself: every actor of `supervisor.toml`, one file each, in packages from the lowest to the highest.

`conditions`, `pool`, `leadership`, `nodes`, `keys`, `health`, `notices`, `payments`, `shop`, `gateway`, `desk`,
`commands`: a package imports only those before it, and `db`, `vpn` and the public names of `runtime`. Nothing else
imports this room. To add an actor: one file here, one table there.
"""

from typing import Final

MOVED_ACTORS: Final = {
    "actors.embedded_postgres:EmbeddedPostgres": "actors.pool.embedded_postgres:EmbeddedPostgres",
    "actors.embedded_node:EmbeddedNode": "actors.nodes.embedded_node:EmbeddedNode",
    "actors.pool:PoolActor": "actors.pool.pool:PoolActor",
    "actors.instance:Instance": "actors.leadership.instance:Instance",
    "actors.node:NodeActor": "actors.nodes.node:NodeActor",
    "actors.activation:Activation": "actors.keys.activation:Activation",
    "actors.fast_expiry:FastExpiry": "actors.keys.fast_expiry:FastExpiry",
    "actors.reconcile:Reconcile": "actors.keys.reconcile:Reconcile",
    "actors.canary:Canary": "actors.nodes.canary:Canary",
    "actors.usage:Usage": "actors.nodes.usage:UsageCollector",
    "actors.auto_renewal:AutoRenewal": "actors.payments.auto_renewal:AutoRenewal",
    "actors.housekeeping:Housekeeping": "actors.health.housekeeping:Housekeeping",
    "actors.reminders:Reminders": "actors.notices.reminders:Reminders",
    "actors.notifications:Notifications": "actors.notices.notifications:Notifications",
    "actors.healthcheck:Healthcheck": "actors.health.healthcheck:Healthcheck",
    "actors.admin:Admin": "actors.desk.admin:Admin",
    "actors.gateway:Gateway": "actors.gateway.gateway:Gateway",
    "actors.payment_watcher:PaymentWatcher": "actors.payments.payment_watcher:PaymentWatcher",
}
"""Where each actor stands that an older `supervisor.toml` names elsewhere: see `runtime.config.actor_class`."""
