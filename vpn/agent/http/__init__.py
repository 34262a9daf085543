"""The agent's HTTP interface: one application that needs the bearer token for everything.

Promise: a request without the token costs a comparison and reads no body; every answer but the metrics is JSON, every error
has a code for the program and a sentence for the operator. Entry points: `api.make_app` and `report.Reporter`. For
`vpn.agent.run`.
"""
