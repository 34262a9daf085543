"""The operator's HTTP side: is the process alive, started and ready, its metrics, and the desk.

Promises: an answer of a probe never waits for the database, a node or another actor. Entry point: in `supervisor.toml`
`admin.Admin`. The desk's frame is `runtime.desk`; here are its pages that know pools (`pools`), customers (`customers`) and what
waits in the database (`backlog`). No other package imports this one.
"""
