"""What all sessions of a page share."""
