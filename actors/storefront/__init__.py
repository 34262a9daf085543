"""The shop as customers see it: a Telegram bot that sells access, shows it and answers.

Promises: no state but rows and what buttons carry, so that a restart loses nothing; one message is edited and none piles up;
every press is answered within a second; what moves money happens once, however often its button is pressed; a price is charged
only as it was shown. Entry points: `storefront.Storefront` in `supervisor.toml`, `settings.StorefrontSettings`. It imports `shop`
and what stands below; no package imports it.
"""
