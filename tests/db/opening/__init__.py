"""What customers bring from another system."""
