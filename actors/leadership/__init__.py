"""Which process works: one at a time on a database, and one at a time on each piece of work that two must not do.

Promises: what is held here is relied on for less time than it lasts in the database; in doubt, work stops. Entry
points: `instance.Instance` in `supervisor.toml`; `leader_lease.hold_leader_lease` and `LeaderElection` for actors
above. Imports `pool` alone.
"""
