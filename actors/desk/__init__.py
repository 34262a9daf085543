"""The operator's HTTP side: is the process alive, started and ready, and its metrics.

Promises: an answer never waits for the database, a node or another actor. Entry point: in `supervisor.toml`
`admin.Admin`. No other package imports this one, and it imports none.
"""
