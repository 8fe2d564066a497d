"""The help sheet."""
