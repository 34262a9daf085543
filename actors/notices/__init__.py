"""What customers and the operator are told by Telegram: from rows of the outbox to messages in the reader's language.

Promises: each message is sent at least once, in its chat's order, at Telegram's pace; it is given up only when
Telegram refuses it for good or it is too late. Entry points: in `supervisor.toml` `notifications.Notifications`,
`reminders.Reminders`. No other package imports this one.
"""
