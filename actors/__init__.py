"""The service itself: every actor of `supervisor.toml`, one file each, in packages from the lowest to the highest.

`conditions`, `pool`, `leadership`, `nodes`, `keys`, `health`, `notices`, `payments`, `shop`, `gateway`, `desk`,
`commands`: a package imports only those before it, and `db`, `vpn` and the public names of `runtime`. Nothing else
imports this room. To add an actor: one file here, one table there.
"""
