"""Talk: base and patient answer one prompt."""
