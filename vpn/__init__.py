"""The VPN room: nodes, Xray and customers' links. Knows `runtime`, never `db` or `actors`.

The files beside this one are what backend and agent share: `protocol` (what a node is asked and answers), `errors`, `digest`,
`link`, `ports`, `token_file`. Above them are the packages, lowest first: `node` (how the backend calls a node's agent), `xray`
(everything that touches Xray), `subscription` (links in the forms that programs read), `clients` (tunnels by VPN clients of two
kinds), `agent` (a process of its own on the VPN host) and `commands` (`atlas node`, `atlas tunnel`). import-linter holds this
order.
"""
