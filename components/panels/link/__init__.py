"""The page as a link."""
