"""Building a plan's model from the base's parameters."""
