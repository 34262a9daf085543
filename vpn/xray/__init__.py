"""Driving Xray: its configuration, its process, its run-time interface, its output, its open connections, and a tunnel
through it.

Knows nothing of wanted keys or of the agent. Entry points: `process.XrayProcess`, `api.XrayApi`,
`config.server_config`,
`connections.Cutter`, `access_log.Connections`, `tunnel.open_tunnel`. For the agent, the canary and `atlas tunnel`.
"""
