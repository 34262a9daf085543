"""The node agent: one process on a VPN host that owns Xray and the durable set of keys."""
