"""Payment providers as they behave towards a shop: their HTTP interfaces, their events, their signatures, their faults.

For tests and the demo. It shares no code with the rest of the program on purpose: a mistake that both made would never
show.
"""
