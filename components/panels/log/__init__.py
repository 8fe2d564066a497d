"""Log: measured plans."""
