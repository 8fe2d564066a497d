"""Files: atomic folders, fast copies, archives."""
