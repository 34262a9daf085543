"""The command line `atlas`."""
