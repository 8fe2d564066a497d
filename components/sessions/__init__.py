"""What one browser session owns, and how it is given back."""
