"""The node agent: one process on a VPN host that owns Xray and the durable set of wanted keys.

Promise: a change is on disk, made in Xray and read back before it is confirmed; keys end on time while the backend is away.
`run` puts the packages together; lowest first they are `config` (settings, metrics), `state` (what is wanted, on disk), `xray`
(making Xray equal to it), `http` (the interface) and `install` (making a host a node). Only `vpn.commands` imports it: the
backend talks to it through `vpn.node`.
"""
