"""Payment providers as they behave towards a shop: their HTTP interfaces, their events, their signatures, their troubles.

For tests and the demo. It shares no code with the rest of the program on purpose: what both would get wrong, nobody
would notice.
"""
