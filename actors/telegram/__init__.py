"""The Bot API of Telegram as this service speaks it: one class a method, one client, and text that cannot break its markup.

Promises: a call never raises for what Telegram or the network does, its answer says what became of it; the bot's token is in no
error, log or repr; what a person wrote is shown as they wrote it and is never markup. Entry points: `api.TelegramApi`, `methods`,
`html.Html`. It knows neither the database nor the shop; all packages above may import it.
"""
