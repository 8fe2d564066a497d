"""The layer strip."""
