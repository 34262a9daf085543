"""The VPN room: what the backend says to a node, the agent that runs on one, Xray, and customers' links.

The room's own files are the words that backend and agent share: `protocol`, `digest`, `link`, `errors`, `ports`.
Packages, lowest
first: `node` (the backend's side), `xray` (what touches Xray), `subscription` (links in the forms that programs read),
`agent` (a
process of its own). Knows `runtime`, never `db` or `actors`.
"""
