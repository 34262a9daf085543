"""`atlas node install`: making a host a VPN node, by root, once or again.

Promise: repeating it is harmless: it goes on from the existing installation, and replaces nothing of the operator's without
`--force`. Entry points: `command.install` and `installation.plan_installation`. Imports the agent's settings and nothing that
runs. For `vpn.commands`.
"""
