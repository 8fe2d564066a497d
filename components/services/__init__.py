"""What all sessions of a process share."""
