"""The node agent: one process on a VPN host that owns Xray and the durable set of keys.

Promise: a change is on disk, made in Xray and read back before it is confirmed; keys end on time while the backend is
away.
`run` puts the packages together: `state` (what is wanted, on disk), `xray` (making Xray equal to it), `http` (the
interface),
`install` (making a host a node). Nobody else imports it but `vpn.cli`; the backend talks to it through `vpn.node`.
"""
