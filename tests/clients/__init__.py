"""Real VPN clients of three implementations, started on what customers are served, exactly as it is served."""
