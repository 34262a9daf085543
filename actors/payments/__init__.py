"""Payments in: one adapter for each provider, and what they share."""
