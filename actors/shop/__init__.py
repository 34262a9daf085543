"""The interface for shop front ends, described by `openapi.yaml`: signed requests in, one transaction each.

Promises: every request is checked against the description, its signature and its nonce before it does anything;
answers to errors follow RFC 9457. Entry points: `routes.shop_routes`, `description.load_description`,
`signature.read_keys`, `settings.ShopSettings`. Only `gateway` imports it.
"""
