"""A base and a plan as a checkpoint on disk: written, verified, published."""
