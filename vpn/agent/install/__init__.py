"""`atlas node install`: making a host a VPN node, by root, once or again.

Entry points: `command.install`, `installation.plan`. Imports the agent's settings and nothing that runs.
"""
