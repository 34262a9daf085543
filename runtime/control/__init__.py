"""The operators' way into a running system: one JSON object a line over a unix socket of mode 0600."""
