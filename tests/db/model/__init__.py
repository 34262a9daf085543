"""The business once more, as a pure model in exact arithmetic, and sequences of actions run against both."""
