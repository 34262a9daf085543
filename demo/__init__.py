"""A month of a simulated shop on the real, embedded stack: `python -m demo`.

It stands outside: it starts `atlas run`, speaks HTTP to the gateway, runs operator commands, and reads the database and the
node only to compare them with what it expects. What it expects it computes by itself, from the rules and not from the code.
"""
