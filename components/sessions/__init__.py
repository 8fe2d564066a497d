"""The state of one browser session."""
