"""Making Xray equal to what is wanted, and keeping it so.

`supervisor` keeps Xray running, `instance` is one run of it, `node` makes and confirms changes, `background_checks`
finds what differs
or leaks. Entry point: `node`. For `vpn.agent.http` and `vpn.agent.run`.
"""
