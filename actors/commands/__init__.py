"""Operator commands of the business: each runs the same business function as the service itself, in one transaction."""
