"""The size tiles."""
