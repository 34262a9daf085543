"""VPN nodes: the agent that runs on one, the client that talks to it, links and tunnels."""
