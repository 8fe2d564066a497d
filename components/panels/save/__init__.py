"""Save: checkpoints to disk, as downloads, or to the Hub."""
