"""What a shop front end calls over HTTP, and where a customer's program fetches its links."""
