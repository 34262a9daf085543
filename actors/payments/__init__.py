"""Payments: providers' events and invoices on their way into the books, and renewals that a balance pays for.

Promises: an event is acknowledged only after it is stored; a payment counts once, however often and by whomever it is
told; no lease is held while a provider is asked. Entry points: `registry.open_providers`, `intake.Intake`,
`invoicing.open_invoice_for`, the protocol `provider.Provider`; in `supervisor.toml` `payment_watcher.PaymentWatcher`,
`auto_renewal.AutoRenewal`, `telegram_updates.TelegramUpdates`. `shop` and `gateway` import it.
"""
