"""Everything that touches Xray: its configuration, process, run-time interface, output and open connections, and a tunnel.

Promise: a failure is a `vpn.errors.XrayError` with what Xray said, redacted; an Xray process ends with its parent. Entry points:
`process.XrayProcess`, `api.XrayApi`, `config.server_config`, `cutter.Cutter`, `access_log.Connections` and
`tunnel.open_tunnel`. Knows nothing of wanted keys. For the agent, the canary, `vpn.subscription` and `vpn.commands`.
"""
