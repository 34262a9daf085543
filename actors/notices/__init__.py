"""Notices to customers and the operator: their texts, how fast they may leave, and the Telegram Bot API."""
