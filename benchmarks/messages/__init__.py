"""What an actor costs: one file for each thing it does."""
