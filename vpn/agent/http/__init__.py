"""The agent's HTTP interface: one application that needs the token for everything.

Entry points: `api.make_app`, `report.Reporter`. For `vpn.agent.run`.
"""
