"""Making Xray equal to what is wanted, and keeping it so.

Promise: what is confirmed was read back from Xray; what could not be confirmed is retried until it is; a customer whose key was
removed or is over loses every open connection, and no other customer does. `supervisor` keeps Xray running and `instance` is one
run of it; `convergence` makes its users equal to the wanted keys; `node` takes changes and ends keys on time;
`background_checks` finds what differs or leaks. Entry points: `node.AgentNode` and `background_checks.BackgroundChecks`. For
`vpn.agent.http` and `vpn.agent.run`.
"""
